#!/bin/sh
# Load one container of this image into its engine:  load ENGINE ID NAME ARCHIVE SIZE SHA256 CONFIG MANIFEST
# Tell whether all of them are loaded:               load
#
# Run by kiwi_containers-ENGINE-ID.service and by kiwi_containers.service; safe to run by hand, and again. Needs
# coreutils, systemd and the engine, nothing else. NAME is the image's full name; CONFIG and MANIFEST are hexadecimal
# digests, one of which the engine shows as the image's id; SIZE is the archive's, in bytes.
#
# /var/lib/kiwi_containers/ENGINE-ID has the SHA-256 of the archive once its image is known to be good and on the disk.
# From then on the image is its users': that they remove or replace it is no reason to load it again.
# /var/lib/kiwi_containers/.ENGINE-loading is there while the engine loads, and afterwards if the power went meanwhile.
set -u
export LC_ALL=C HOME="${HOME:-/root}"

archives=/var/tmp/kiwi_containers
state=/var/lib/kiwi_containers
runtime=/run/kiwi_containers
owner=$(id -u)
units=/usr/lib/systemd/system
keep=/usr/libexec/kiwi_containers/keep

say() { # PRIORITY TEXT
    [ -n "${JOURNAL_STREAM-}" ] && printf '<%s>' "$1"
    printf '%s\n' "$2"
}

give_up() { # WHY
    say 3 "$name: not loaded into $engine: $1; tried again at the next boot, or by: systemctl restart $unit"
    exit 1
}

# An administrator who masks a unit wants neither its load nor to hear of it.
wanted() { # UNIT
    [ -e "$units/$1" ] && [ "$(readlink "/etc/systemd/system/$1")" != /dev/null ]
}

summarize() {
    missing=
    for file in "$units"/kiwi_containers-*.service; do
        if wanted "${file##*/}" && ! systemctl --quiet is-active "${file##*/}"; then
            missing="$missing ${file##*/}"
        fi
    done
    [ -z "$missing" ] && return 0
    say 3 "not loaded:$missing; see: journalctl -b -t kiwi_containers"
    return 1
}

# Other users must not be able to change a file between its check and its use, or make root remove files elsewhere. In
# /var/tmp any user can create the directory if it is missing, or put a link in its place. "stat" follows no link. The
# group may not write either: its permissions include those that an ACL gives to single users.
is_own() { # directory|regular PATH
    found=$(stat -c '%u/%a/%F' -- "$2" 2> /dev/null)
    case $found in "$owner/"*[0145][0145]"/$1"*) return 0 ;; esac
    problem="$2: got ${found:-nothing} (owner, mode, type), expected a $1 that only root can write to"
    problem="$problem; remove it, or give it to root: chown -h root $2 && chmod go-w $2"
    return 1
}

own_directory() { # DIRECTORY: create it if it is missing
    mkdir -m 755 -- "$1" 2> /dev/null
    is_own directory "$1"
}

# A process has its PID and the time of its start for itself; the PID alone may be another's later (proc(5), stat).
process() { # PID
    line=
    read -r line 2> /dev/null < "/proc/$1/stat"
    # shellcheck disable=SC2086  # the numbers behind the name of the program
    set -- "$1" ${line##*) }
    echo "$1-${21-}"
}

# Loads into one engine take turns: the disk then has to hold the copies of one of them only, and .ENGINE-loading tells of
# one. It does not matter much that two waiters could both take over from a holder that was killed.
lock() {
    own_directory "$runtime" || give_up "$problem"
    until ln -s "$(process $$)" "$runtime/$engine.lock" 2> /dev/null; do
        holder=$(readlink "$runtime/$engine.lock") && [ "$holder" != "$(process "${holder%-*}")" ] &&
            rm -f "$runtime/$engine.lock"
        sleep 0.5
    done
    locked=yes
}

remove_copies() {
    rm -rf -- "$archives/.$engine-$id" "/dev/shm/kiwi_containers-$engine-$id".*
}

# Copies belong to the holder of the lock: until then there may be those of another run for the same container.
clean_up() {
    [ -n "$locked" ] || return 0
    remove_copies
    rm -f "$runtime/$engine.lock"
    locked=
}

recorded() { # ENGINE
    is_own regular "$state/$1-$id" && read -r line < "$state/$1-$id" && [ "$line" = "$sha256" ]
}

# Units that share an archive share its ID: the last engine that has the image removes it, unless somebody wants the
# archive as well (fetch_only).
release_archive() {
    [ -e "$archive" ] && [ ! -e "$keep/$id" ] || return 0
    for other in podman docker container-snap; do
        wanted "kiwi_containers-$other-$id.service" && ! recorded "$other" && return 0
    done
    rm -f -- "$archive"
}

# What was loaded has to be on the disk before the record says so and the archive, its only other copy, goes.
record() {
    problem="$store or $state cannot be written"
    sync -f "$store" && printf '%s\n' "$sha256" > "$state/.$engine-$id" &&
        mv -f "$state/.$engine-$id" "$state/$engine-$id" && sync -f "$state" && release_archive
}

ask() { # ARGUMENT...: the engine, which may hang
    timeout -k 30 120 "$engine" "$@" 2> /dev/null
}

# As an image's id podman and docker's classic store show the digest of its configuration, docker's containerd store
# that of its manifest. container-snap lists ID,CREATED,NAME with one name only, and its users go by the id.
present() {
    if [ "$engine" = container-snap ]; then
        case "
$(ask list-images)" in *"
$config,"*) return 0 ;; esac
        return 1
    fi
    case $name in *@*) set -- "$name" "$config" "$manifest" ;; *) set -- "$name" ;; esac
    for candidate; do
        found=$(ask image inspect --format '{{.Id}}' "$candidate")
        case ${found#sha256:} in "$config" | "$manifest") return 0 ;; esac
    done
    return 1
}

copy_on_disk() {
    copy=$archives/.$engine-$id
    [ -d "$copy" ] || mkdir -m 700 "$copy"
}

copy_in_memory() {
    copy=$(mktemp -d "/dev/shm/kiwi_containers-$engine-$id.XXXXXX")
}

# A power cut leaves an engine with layers that it holds for complete, whose content never reached the disk, and it
# would build the next image on these. So after a load that was cut off, images are read back as a whole: podman and
# docker's classic store check the sums that they kept of every file. What is damaged is removed, with its layers, for
# the next try to load anew. Docker's containerd store and container-snap keep no such sums: theirs can only be trusted.
# To read a layer, podman makes a copy of it: that there is no room for one tells nothing of the image.
sound() {
    [ -z "$cut_off" ] || [ "$engine" = container-snap ] && return 0
    problem="the power went while images were loaded, and there is no room for copies to see whether this one is damaged"
    for choose in copy_on_disk copy_in_memory; do
        $choose || continue
        output=$(TMPDIR=$copy timeout -k 30 "$limit" "$engine" save "${found:-$config}" 2>&1 > /dev/null) && return 0
        case $output in *"no space left"*) continue ;; esac
        ask rmi "${found:-$config}" > /dev/null
        problem="the power went while images were loaded, and this one is damaged; removed it"
        break
    done
    return 1
}

# Layers that are damaged can be in the way before there is an image of them to be removed; newer podmans find these.
repair() {
    [ -n "$cut_off" ] && [ "$engine" = podman ] && timeout -k 30 "$limit" podman system check --repair > /dev/null 2>&1
}

check_archive() {
    [ -e "$archive" ] || give_up "$archive is missing: put it back, or get the image with: $engine pull $name"
    is_own regular "$archive" || give_up "$problem"
    bytes=$(stat -c %s -- "$archive")
    [ "$bytes" = "$size" ] || give_up "$archive is damaged: got $bytes bytes, expected $size; replace it"
    sum=$(sha256sum < "$archive") || give_up "$archive cannot be read"
    [ "${sum%% *}" = "$sha256" ] || give_up "$archive is damaged: got SHA-256 ${sum%% *}, expected $sha256; replace it"
}

find_store() {
    case $engine in
        podman) store=$(ask info --format '{{.Store.GraphRoot}}') || store=/var/lib/containers ;;
        docker)
            store=$(ask info --format '{{.DockerRootDir}} {{.DriverStatus}}') || store=/var/lib/docker
            case $store in *io.containerd*) store=/var/lib/containerd ;; *) store=${store%% [[]*} ;; esac
            ;;
        *) store=/var/lib/container-snap ;;
    esac
    while [ ! -d "${store:=/var/lib}" ]; do store=$(dirname "$store"); done
}

free() { # DIRECTORY: the bytes that root can still write there
    # shellcheck disable=SC2046  # two numbers
    set -- $(stat -f -c '%f %S' "$1")
    echo $(($1 * $2))
}

mib() { # BYTES
    echo "$((($1 + 1048575) / 1048576)) MiB"
}

# Docker copies the archive into its store before it unpacks it, podman and container-snap copy it twice: as a whole,
# then blob by blob. Where memory is plentiful it takes these: that spares the disk much of the writing, and of the room
# needed.
choose_copy_place() {
    if [ "$engine" = docker ]; then
        copies=$size copy=$store
        return
    fi
    problem="no temporary directory could be made in $archives or /dev/shm"
    copies=$((2 * size))
    while read -r key memory _; do [ "$key" = MemAvailable: ] && break; done < /proc/meminfo
    if [ $((2 * copies)) -lt $((memory * 1024)) ] && [ $((2 * copies)) -lt "$(free /dev/shm)" ]; then
        copy_in_memory
    else
        copy_on_disk
    fi && ln -s "$archive" "$copy/archive"
}

enough() { # DIRECTORY BYTES WHAT-FOR
    available=$(free "$1")
    [ "$available" -ge "$2" ] && return 0
    problem="$1 has $(mib "$available") free, and $(mib "$2") are needed for $3"
    return 1
}

check_space() {
    if [ "$(stat -c %d "$store")" = "$(stat -c %d "$copy")" ]; then
        enough "$store" $((size + copies)) "the image ($(mib "$size"), or more) and copies ($(mib "$copies"))"
    else
        enough "$store" "$size" "the image, or more" && enough "$copy" "$copies" "temporary copies"
    fi
}

# "podman load" would try the archive as Docker's too where it fails to read it as OCI's: for want of space, say. That
# can succeed, with another manifest than the pinned one. The link keeps colons in the archive's name from being syntax.
run_engine() {
    case $engine in
        podman) set -- pull --quiet "oci-archive:$copy/archive" ;;
        docker) set -- load --quiet -i "$archive" ;;
        *) set -- load -i "$copy/archive" ;;
    esac
    problem="$state cannot be written"
    : > "$loading" && sync -f "$state" || return 1
    output=$(TMPDIR=$copy timeout -k 30 "$limit" "$engine" "$@" 2>&1)
    status=$?
    [ -n "$cut_off" ] || { sync -f "$store" && rm -f "$loading"; }
    [ $status -eq 0 ] && return 0
    [ $status -eq 124 ] && give_up "$engine did not finish within $limit s"
    problem="$engine failed with status $status: $(printf %s "$output" | tr -s '[:cntrl:]' ' ' | head -c 600)"
    case $output in *"no space left"*) problem="$problem ($(mib "$(free "$store")") free in $store)" ;; esac
    return 1
}

try() {
    find_store
    if present && sound; then
        record && say 6 "$name: $engine has it already"
        return
    fi
    check_archive
    choose_copy_place && check_space && run_engine || return 1
    present
    is_present=$?
    sound || return 1
    problem="$engine has not got sha256:$config under that name"
    [ $is_present -eq 0 ] && record && say 6 "$name: loaded into $engine"
}

load() {
    own_directory "$state" || give_up "$problem"
    if recorded "$engine"; then
        if own_directory "$archives"; then
            release_archive
            return
        fi
        say 4 "$name: $engine has it already, but its archive cannot be removed: $problem"
        return 0
    fi
    own_directory "$archives" || give_up "$problem"
    command -v "$engine" > /dev/null || give_up "$engine is not installed; install it"
    trap clean_up EXIT
    trap 'exit 143' HUP INT TERM
    for pause in 2 6 18 -; do
        lock
        [ -n "$tried" ] || [ ! -e "$loading" ] || cut_off=yes
        tried=yes
        remove_copies
        try && return
        repair
        clean_up
        [ $pause = - ] && give_up "$problem"
        say 4 "$name: not loaded into $engine yet: $problem; next try in $pause s"
        sleep $pause
    done
}

if [ $# -eq 0 ]; then
    summarize
    exit
fi
engine=$1 id=$2 name=$3 archive=$4 size=$5 sha256=$6 config=$7 manifest=$8
unit=kiwi_containers-$engine-$id.service loading=$state/.$engine-loading
limit=$((600 + size / 1048576)) locked='' tried='' cut_off=''
load
