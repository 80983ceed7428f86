#!/bin/sh
# Load one container of this image into its engine:  load ENGINE ID NAME ARCHIVE SIZE SHA256 CONFIG MANIFEST
# Check that all containers are loaded:              load
#
# kiwi_containers-ENGINE-ID.service and kiwi_containers.service run this script. It can also be run by hand, and more
# than once. It needs only coreutils, systemd and the engine. NAME is the full name of the image. SIZE is the size of
# the archive in bytes. CONFIG and MANIFEST are hexadecimal digests; the engine shows one of them as the ID of the
# image.
#
# /var/lib/kiwi_containers/ENGINE-ID is the record of a load. It contains the SHA-256 of the archive, and is written
# when the image is intact and on the disk. From then on the image belongs to the user: it is not loaded again, even if
# it is removed or replaced. /var/lib/kiwi_containers/.ENGINE-loading exists while the engine loads, and remains after a
# power cut.
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

# If an administrator masks a unit, its container is not loaded, and this is not reported.
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

# Other users must not be able to change a file between its check and its use, or to make root remove files elsewhere.
# In /var/tmp, any user can create the directory if it is missing, or put a symlink in its place. "stat" does not follow
# symlinks. The group must not have write permission either, because it includes what an ACL grants to single users.
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

# PID and start time together identify a process; the PID alone can be reused by another one (proc(5), stat).
process() { # PID
    line=
    read -r line 2> /dev/null < "/proc/$1/stat"
    # shellcheck disable=SC2086  # split the fields after the program name into words
    set -- "$1" ${line##*) }
    echo "$1-${21-}"
}

# Only one container at a time is loaded into an engine. So the disk has to hold temporary copies of one archive only,
# and .ENGINE-loading refers to one load. If the holder of the lock was killed, two waiting loaders could both take the
# lock; this does little harm.
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

# Only the holder of the lock may remove temporary copies: another run may be using those of the same container.
clean_up() {
    [ -n "$locked" ] || return 0
    remove_copies
    rm -f "$runtime/$engine.lock"
    locked=
}

recorded() { # ENGINE
    is_own regular "$state/$1-$id" && read -r line < "$state/$1-$id" && [ "$line" = "$sha256" ]
}

# Units that share an archive have the same ID. The archive is removed when all their engines have the image, unless it
# is also wanted as a file (fetch_only).
release_archive() {
    [ -e "$archive" ] && [ ! -e "$keep/$id" ] || return 0
    for other in podman docker container-snap; do
        wanted "kiwi_containers-$other-$id.service" && ! recorded "$other" && return 0
    done
    rm -f -- "$archive"
}

# The image must be on the disk before the load is recorded and the archive, its only other copy, is removed.
record() {
    problem="$store or $state cannot be written"
    sync -f "$store" && printf '%s\n' "$sha256" > "$state/.$engine-$id" &&
        mv -f "$state/.$engine-$id" "$state/$engine-$id" && sync -f "$state" && release_archive
}

ask() { # ARGUMENT...: run the engine with a time limit, because it may hang
    timeout -k 30 120 "$engine" "$@" 2> /dev/null
}

# The ID of an image is the digest of its configuration in podman and docker's classic store, and the digest of its
# manifest in docker's containerd store. container-snap prints ID,CREATED,NAME with only one of the names of an image,
# so only the ID is reliable.
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

# After a power cut, an engine may regard layers as complete although their content never reached the disk, and would
# use them for the next image. Therefore, after an interrupted load, images are read back completely: podman and
# docker's classic store compare every file with its checksum. A damaged image is removed together with its layers, so
# that the next attempt loads them again. docker's containerd store and container-snap have no such checksums; their
# images cannot be checked. podman needs space for a copy of each layer that it reads. A lack of space does not mean a
# damaged image.
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

# Damaged layers can make a load fail when there is no image yet that could be removed. Newer versions of podman find
# and remove such layers.
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

free() { # DIRECTORY: print the number of bytes that root can still write there
    # shellcheck disable=SC2046  # split the output into two numbers
    set -- $(stat -f -c '%f %S' "$1")
    echo $(($1 * $2))
}

mib() { # BYTES
    echo "$((($1 + 1048575) / 1048576)) MiB"
}

# docker copies the archive to its store before unpacking it. podman and container-snap copy it twice: first the whole
# archive, then each blob. If there is plenty of memory, the copies go there, which saves disk space and writes.
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

# "podman load" is not used: if it fails to read the archive as an OCI archive, for example because the disk is full, it
# tries again as a Docker archive. That can succeed, but gives an image with a different manifest than the pinned one.
# The archive is passed as a symlink, because colons in its name would be parsed as syntax.
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
