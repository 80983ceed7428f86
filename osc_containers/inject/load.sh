#!/bin/sh
# Load one container of this image into its engine:  load ENGINE ID NAME SIZE CONFIG MANIFEST TOP [STREAM]
# Check that all containers are loaded:              load
#
# kiwi_containers-ENGINE-ID.service and kiwi_containers.service run this script. It can also be run by hand, and more
# than once. It needs only coreutils, systemd and the engine. NAME is the full name of the image, SIZE the number of
# bytes of its blobs. CONFIG, MANIFEST and TOP are digests; TOP is that of the index, or of the manifest if there is no
# index. The engine shows one of them as the ID of the image. STREAM is a SHA-256 and only for engines that cannot read
# a directory. ENGINE is podman, docker, container-snap, containerd or, for another namespace than that of Kubernetes,
# containerd:NAMESPACE. ctr, the client of containerd, finds another daemon by CONTAINERD_ADDRESS, and uses another
# snapshotter than the default with CONTAINERD_SNAPSHOTTER.
#
# /var/lib/kiwi_containers/layouts/ID is the image: an OCI image layout whose blobs are hard links, so that containers
# share them. It is removed when the load is recorded; if that is interrupted, at the next boot.
#
# /var/lib/kiwi_containers/ENGINE-ID is the record of a load. It is written when the image is intact and on the disk;
# until then, .ENGINE-ID is a draft of it. Its first line has CONFIG and MANIFEST, the others the names of all blobs.
# Once there is a record, the image belongs to the user: it is not loaded again, even if it is removed or replaced. If a
# newer version of the system has another image under the same ID, the record does not match and the image is loaded.
#
# /var/lib/kiwi_containers/.ENGINE-loading exists while the engine loads, and remains after a power cut. For containerd,
# it has the list of the snapshots before the load.
set -u
# systemd sets no HOME for services without `User=` (systemd.exec(5)), and engines look for their configuration there.
export LC_ALL=C HOME="${HOME:-/root}"

state=/var/lib/kiwi_containers
runtime=/run/kiwi_containers
layouts=$state/layouts
shm=/dev/shm
owner=$(id -u)
units=/usr/lib/systemd/system

say() { # PRIORITY TEXT
    # systemd sets the variable if the output goes to the journal, which takes `<N>` for a priority (sd-daemon(3)).
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
# "stat" does not follow symlinks. The group must not have write permission either, because it includes what an ACL
# grants to single users.
is_own() { # directory|regular PATH
    found=$(stat -c '%u/%a/%F' -- "$2" 2> /dev/null)
    # The last two digits of the mode are for group and others; 0, 1, 4 and 5 do not let them write. The type of a file
    # may also be "regular empty file".
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
    # The start time is field 22 of the file. Here, one word stands for the first two fields.
    echo "$1-${21-}"
}

# Only one container at a time is loaded into an engine. So the disk has to hold temporary copies for one image only,
# layers that images share are unpacked once, and .ENGINE-loading refers to one load. The lock names a process that lasts
# as long as this one needs the lock, so that others can wait for its end. If the holder was killed, two waiting loaders
# could both take the lock; this does little harm.
lock() {
    own_directory "$runtime" || give_up "$problem"
    tail --pid=$$ -f /dev/null > /dev/null 2>&1 &
    keeper=$!
    until ln -s "$(process "$keeper")" "$runtime/$engine.lock" 2> /dev/null; do
        holder=$(readlink "$runtime/$engine.lock") || continue
        if [ "$holder" = "$(process "${holder%-*}")" ]; then
            # If the PID is reused meanwhile, this would wait for that process.
            timeout 1 tail --pid="${holder%-*}" -s 0.01 -f /dev/null
        elif [ "$(readlink "$runtime/$engine.lock")" = "$holder" ]; then
            # The lock is still the one that was read, so its holder was killed.
            rm -f "$runtime/$engine.lock"
        fi
    done
    locked=yes
}

remove_copies() {
    rm -rf -- "$state/.copies-$engine-$id" "$shm/kiwi_containers-$engine-$id".*
}

# Only the holder of the lock may remove temporary copies: another run may be using those of the same container.
clean_up() {
    if [ -n "$locked" ]; then
        remove_copies
        rm -f "$runtime/$engine.lock"
        locked=
    fi
    if [ -n "$keeper" ]; then
        # Until it is waited for, it would look as if it still ran.
        kill "$keeper" && wait "$keeper"
        keeper=
    fi 2> /dev/null
}

recorded() { # ENGINE
    is_own regular "$state/$1-$id" && read -r line < "$state/$1-$id" && [ "$line" = "$config $manifest" ]
}

# Units with the same ID share a layout. It is removed when all their engines have the image.
release_layout() {
    [ -e "$layout" ] || [ -h "$layout" ] || return 0
    for file in "$units"/kiwi_containers-*-"$id".service; do
        # The pattern also finds the units of longer IDs that end like this one. What is left of these is no engine.
        other=${file##*/kiwi_containers-} other=${other%-"$id".service}
        case $other in
            podman | docker | container-snap | containerd | containerd:*)
                wanted "${file##*/}" && ! recorded "$other" && return 0
                ;;
        esac
    done
    rm -rf -- "$layout"
}

# As soon as the engine has the blobs, the draft names them: the next load needs no space for those.
draft() {
    {
        printf '%s %s\n' "$config" "$manifest"
        if [ -d "$layout/blobs" ]; then ls "$layout/blobs/"*; fi
    } > "$state/.$engine-$id"
}

# The image must be on the disk before the load is recorded and the layout, its only other copy, is removed.
record() {
    problem="$store or $state cannot be written"
    sync -f "$store" && draft && mv -f "$state/.$engine-$id" "$state/$engine-$id" && sync -f "$state" && release_layout
}

ask() { # ARGUMENT...: run the engine with a time limit, because it may hang
    # shellcheck disable=SC2086  # split the client into its words
    timeout -k 30 120 $client "$@" 2> /dev/null
}

# The ID of an image is the digest of its configuration in podman and docker's classic store, and the digest of its
# manifest or index in docker's containerd store. In podman, name and digests must resolve, too. container-snap prints
# ID,CREATED,NAME with only one of the names of an image, so only the ID is reliable.
present() {
    case $engine in
        podman)
            found=${config#*:}
            names=$(ask image inspect --format '{{.Id}} {{join .RepoTags " "}} {{join .RepoDigests " "}} ' "$tag")
            case $names in "$found "*"@$manifest "*) ;; *) return 1 ;; esac
            case $names in *"@$top "*) return 0 ;; esac
            [ -n "$loaded" ] && say 4 "$name: podman finds it by name and $manifest, but not by $top"
            [ -n "$loaded" ] && return 0
            ;;
        docker)
            case $name in *@*) set -- "$tag" "$config" "$manifest" "$top" ;; *) set -- "$tag" ;; esac
            for candidate; do
                found=$(ask image inspect --format '{{.Id}}' "$candidate")
                case $found in "$config" | "$manifest" | "$top") return 0 ;; esac
            done
            found=$config
            ;;
        containerd*)
            # REF TYPE DIGEST STATUS (PRESENT/WANTED) SIZE UNIT UNPACKED, below a header
            found=$name
            while read -r line; do
                case $line in
                    "$name "*" $top complete "*" true"* | "$name "*" $manifest complete "*" true"*) return 0 ;;
                esac
            done << EOF
$(ask images check "name==\"$name\"")
EOF
            ;;
        *)
            found=${config#*:}
            case "
$(ask list-images)" in *"
$found,"*) return 0 ;; esac
            ;;
    esac
    return 1
}

# podman pulls from a directory without a name, or with one made of its path (before version 5). Pulling by name would
# work for OCI manifests only. An image that was pinned by digest alone gets a tag as well, because engines remove
# images without tags as unused ("image prune"), and podman finds a digest only below a name.
give_name() {
    if [ "$engine" = podman ]; then
        ask tag "${config#*:}" "$tag"
        present
        is_present=$?
        path_name=localhost$runtime/image:latest
        case $names in *" $path_name "*) ask untag "$found" "$path_name" > /dev/null ;; esac
        return $is_present
    fi
    present || return
    case $engine/$name in
        docker/*@*) ask tag "$found" "$tag" ;;
        containerd*) pin ;;
    esac
}

# containerd finds an image by its records only, which are names with a digest each. Kubernetes looks for what a pod
# has: the name with the tag, or with the digest of the index. It removes images that no pod uses when the disk is full,
# unless they have the label of pinned ones (containerd, internal/cri/labels). Some releases notice the label only on
# records that are made with it, so the others are made from one that has it.
pin() {
    for record in "$name" "$tag" "${tag%:*}@$top"; do
        [ "$record" = "$name" ] || ask images tag "$name" "$record" > /dev/null
        ask images label "$record" io.cri-containerd.pinned=pinned > /dev/null || return 1
    done
}

copy_on_disk() {
    copy=$state/.copies-$engine-$id
    [ -d "$copy" ] || mkdir -m 700 "$copy"
}

copy_in_memory() {
    copy=$(mktemp -d "$shm/kiwi_containers-$engine-$id.XXXXXX")
}

# After a power cut, an engine may regard layers as complete although their content never reached the disk, and would
# use them for the next image. Therefore, after an interrupted load, images are read back completely: podman and
# docker's classic store compare every file with its checksum. A damaged image is removed together with its layers, so
# that the next attempt loads them again, unless somebody has made containers from it. docker's containerd store and
# container-snap have no such checksums; their images cannot be checked. podman needs space for a copy of each layer
# that it reads. A lack of space does not mean a damaged image. For containerd itself, see forget_layers.
sound() {
    [ -n "$cut_off" ] || return 0
    [ "$engine" != container-snap ] || return 0
    problem="the power went while images were loaded, and there is no space to check whether this one is damaged"
    for choose in copy_on_disk copy_in_memory; do
        $choose || continue
        # In this order, the redirections keep the messages and discard the archive.
        output=$(TMPDIR=$copy timeout -k 30 "$limit" "$engine" save "$found" 2>&1 > /dev/null) && return 0
        case $output in *"no space left"*) continue ;; esac
        problem="the power went while images were loaded, and this one is damaged"
        if [ -n "$(ask ps --all --quiet --filter "ancestor=$found")" ]; then
            give_up "$problem; containers use it: remove them and the image"
        fi
        ask rmi --force "$found" > /dev/null
        problem="$problem; removed it"
        break
    done
    return 1
}

# Damaged layers can make a load fail when there is no image yet that could be removed. Newer versions of podman find
# and remove such layers. If there is an additional image store, they would also remove sound images that rest on its
# layers, but not without `--force` those that a container uses. So each image gets one for that time.
repair() {
    [ -n "$cut_off" ] && [ "$engine" = podman ] && ask system check --help > /dev/null || return 0
    case $(ask info --format '{{.Store.GraphOptions}}') in *mage[Ss]tore*) keep_images ;; esac &&
        timeout -k 30 "$limit" podman system check --repair > /dev/null 2>&1
    release_images
}

keep_images() {
    for image in $(ask images --all --quiet --no-trunc); do
        # These containers are never started, so they need no network, volumes and health checks.
        ask create --pull never --network none --image-volume ignore --no-healthcheck --label kiwi_containers=keep \
            "$image" true > /dev/null || return
    done
}

release_images() {
    ask rm --force --filter label=kiwi_containers=keep > /dev/null
}

# containerd keeps no checksums of unpacked layers, but unpacks a layer again if its snapshot is missing. Therefore,
# after an interrupted load, all snapshots are removed that were not there before it: first the one that was being
# written, whose key has two words, "extract-ID sha256:HEX". Those with children stay, among them those that containers
# use.
forget_layers() {
    problem="containerd does not list its snapshots; see: systemctl status containerd"
    before=$(cat "$loading") previous=
    # A snapshot can be removed only after those that rest on it, so this is repeated until nothing changes any more.
    while snapshots=$(ask snapshots list) || return 1; [ "$snapshots" != "$previous" ]; do
        while read -r key rest; do
            case $before in *"$key"*) continue ;; esac
            case "$key $rest " in
                extract-*) ask snapshots rm "$key ${rest%% *}" ;;
                *" Committed "*) ask snapshots rm "$key" ;;
            esac
        done << EOF
$snapshots
EOF
        previous=$snapshots
    done
    rm -f "$loading"
}

accept() { # the image that the engine has already
    present && sound && { [ "$engine" = podman ] || give_name; } && record && say 6 "$name: $engine has it already"
}

unusable() { # WHY: the layout cannot be used. That does not matter if the engine has the image.
    accept && exit
    give_up "$1"
}

check_file() { # PATH DIGEST: each algorithm has a program that is named after it
    sum=$("${2%%:*}sum" -- "$1" 2> /dev/null) || unusable "$1 is missing or cannot be read: put it back"
    [ "${sum%% *}" = "${2#*:}" ] || unusable "$1 is damaged: got ${2%%:*}:${sum%% *}, expected $2; replace it"
}

check_blobs() { # DIGEST...
    for digest; do check_file "$layout/blobs/${digest%%:*}/${digest#*:}" "$digest"; done
}

# podman verifies layers, configuration and manifest of an index while it reads them, but not the document that
# index.json names. The others verify less, or keep the name of an image that they could not load.
check_layout() {
    [ -d "$layout" ] || unusable "$layout is missing: put it back, or get the image with: $pull $name"
    # One call for all files, because each call takes as long as reading a document.
    while read -r path status; do
        case $path in "$layout" | "$layout/blobs" | "$layout/blobs/sha"???) type=directory ;; *) type=regular ;; esac
        case $status in "$owner/"*[0145][0145]"/$type"*) ;; *) is_own "$type" "$path" || unusable "$problem" ;; esac
    done << EOF
$(stat -c '%n %u/%a/%F' -- "$layout" "$layout/"* "$layout/blobs/"* "$layout/blobs/"*/* 2> /dev/null)
EOF
    check_blobs "$top" "$manifest" "$config"
    [ "$engine" = podman ] && return
    sum=$(cat "$layout/stream" "$layout/frame" | sha256sum)
    [ "${sum%% *}" = "$stream" ] || unusable "$layout/stream or frame is damaged or missing; replace both"
    while read -r _ path; do check_file "$layout/$path" "$(digest_of "$path")"; done < "$layout/stream"
}

digest_of() { # blobs/ALGORITHM/HEX
    set -- "${1#blobs/}"
    echo "${1%%/*}:${1#*/}"
}

# Name a damaged blob, if there is one: what an engine says about it differs from version to version.
explain() {
    for path in "$layout/blobs/"*/*; do check_file "$path" "$(digest_of "${path#"$layout/"}")"; done
}

# Print the image as an archive. "head" may read more than it prints, so the frame is not read through one descriptor.
archive() {
    # `tail` counts bytes from 1.
    offset=1
    while read -r count path; do
        tail -c "+$offset" "$layout/frame" | head -c "$count"
        cat -- "$layout/$path" || return 1
        offset=$((offset + count))
    done < "$layout/stream"
    tail -c "+$offset" "$layout/frame"
}

# Asking podman takes as long as loading a small image, so the answer is kept until the next boot.
find_store() {
    if is_own regular "$runtime/$engine.store" && read -r store < "$runtime/$engine.store" && [ -d "$store" ]; then
        return
    fi
    case $engine in
        podman) store=$(ask info --format '{{.Store.GraphRoot}}') || store=/var/lib/containers ;;
        docker)
            store=$(ask info --format '{{.DockerRootDir}} {{.DriverStatus}}') || store=/var/lib/docker
            case $store in *io.containerd*) store=/var/lib/containerd ;; *) store=${store%% [[]*} ;; esac
            ;;
        containerd*) store=/var/lib/containerd ;;
        *) store=/var/lib/container-snap ;;
    esac
    # An engine that was never used has no store yet, so the file system of the nearest directory above it counts.
    while [ ! -d "${store:=/var/lib}" ]; do store=$(dirname "$store"); done
    printf '%s\n' "$store" > "$runtime/$engine.store"
}

free() { # DIRECTORY: print the number of bytes that root can still write there
    # shellcheck disable=SC2046  # split the output into two numbers
    set -- $(stat -f -c '%f %S' "$1")
    echo $(($1 * $2))
}

mib() { # BYTES
    echo "$((($1 + 1048575) / 1048576)) MiB"
}

# Images share layers. Blobs of other loads are in the engine already, unless somebody has removed their images.
# podman then needs space for the others only, once for a copy and once unpacked. docker and containerd copy the whole
# archive to their stores before unpacking it. container-snap needs the archive as a file, and copies it twice: first as
# a whole, then each blob. If there is plenty of memory, the copies go there, which saves disk space and writes.
choose_copy_place() {
    before=$(cat "$state/$engine-"* "$state/.$engine-"* 2> /dev/null)
    new=0
    while read -r bytes blob; do
        case $before in *"${blob##*/}"*) ;; *) new=$((new + bytes)) ;; esac
    done << EOF
$(stat -c '%s %n' -- "$layout/blobs/"*/*)
EOF
    case $engine in
        podman) copies=$new ;;
        docker | containerd*)
            copies=$size copy=$store
            return
            ;;
        *) copies=$((3 * size)) ;;
    esac
    problem="no temporary directory could be made in $state or $shm"
    while read -r key memory _; do [ "$key" = MemAvailable: ] && break; done < /proc/meminfo
    # MemAvailable is in KiB (proc(5)). /dev/shm has a limit of its own, by default half of the memory (tmpfs(5)).
    if [ $((2 * copies)) -lt $((memory * 1024)) ] && [ $((2 * copies)) -lt "$(free $shm)" ]; then
        copy_in_memory
    else
        copy_on_disk
    fi
}

enough() { # DIRECTORY BYTES WHAT-FOR
    available=$(free "$1")
    [ "$available" -ge "$2" ] && return 0
    problem="$1 has $(mib "$available") free, and $(mib "$2") are needed for $3"
    return 1
}

check_space() {
    if [ "$(stat -c %d "$store")" = "$(stat -c %d "$copy")" ]; then
        enough "$store" $((new + copies)) "new layers ($(mib "$new"), or more) and copies ($(mib "$copies"))"
    else
        enough "$store" "$new" "new layers, or more" && enough "$copy" "$copies" "temporary copies"
    fi
}

# Before version 5, podman makes a name of the path of the directory, and fails if it is not a valid one. So it gets a
# link with a plain name. "podman load" is not used: if it fails to read an OCI image, for example because the disk is
# full, it tries again as a Docker archive. That can succeed, but gives an image with a different manifest than the
# pinned one.
run_engine() {
    problem="$state cannot be written"
    # This file must be on the disk before the engine writes anything, or a power cut could leave layers without it.
    : > "$loading" && sync -f "$state" || return 1
    case $engine in
        containerd*)
            problem="containerd does not list its snapshots; see: systemctl status containerd"
            ask snapshots list > "$loading" || { rm -f "$loading" && return 1; }
            sync -f "$state"
            ;;
    esac
    case $engine in
        podman)
            output=$(ln -sfn -- "$layout" "$runtime/image" &&
                TMPDIR=$copy timeout -v -k 30 "$limit" podman pull --quiet "oci:$runtime/image" 2>&1)
            ;;
        docker) output=$(archive 2> /dev/null | timeout -v -k 30 "$limit" docker load --quiet 2>&1) ;;
        containerd*)
            # shellcheck disable=SC2086
            output=$(archive 2> /dev/null | timeout -v -k 30 "$limit" $client images import - 2>&1)
            ;;
        *)
            output=$(archive 2>&1 > "$copy/archive" &&
                TMPDIR=$copy timeout -v -k 30 "$limit" "$engine" load -i "$copy/archive" 2>&1)
            ;;
    esac
    status=$?
    # After a power cut the file stays: any later image may rest on a damaged layer, so all of them are read back.
    [ -n "$cut_off" ] || { sync -f "$store" && rm -f "$loading"; }
    [ $status -eq 0 ] && return 0
    # No other try: it would take as long again, and all other loads of this engine wait for the lock. An engine that
    # ignores TERM is killed, which gives 137. So does a kill by the kernel for lack of memory, but without this message.
    case $status/$output in
        124/* | 137/*"timeout: sending signal TERM"*) give_up "$engine did not finish within $limit s" ;;
    esac
    # Warnings come first, and the error last.
    problem="$engine failed with status $status: $(printf %s "$output" | tr -s '[:cntrl:]' ' ' | tail -c 600)"
    case $output in
        *"no space left"*) problem="$problem ($(mib "$(free "$store")") free in $store, $(mib "$copies") for copies)" ;;
        *) explain ;;
    esac
    return 1
}

try() {
    # While damaged layers may be there, no image of containerd is accepted, and none is loaded that would use them.
    case $cut_off/$engine in
        yes/containerd*)
            forget_layers || return 1
            cut_off=
            ;;
        # The power may have gone during a repair.
        yes/podman) release_images ;;
    esac
    find_store
    # Pulling an image that podman has takes as long as asking for it.
    if [ -n "$cut_off" ] || [ "$engine" != podman ]; then accept && return; fi
    check_layout
    choose_copy_place && check_space && run_engine || return 1
    loaded=yes
    # The next image can be loaded while this one gets its name.
    [ -n "$cut_off" ] || { draft && clean_up; }
    give_name
    is_present=$?
    sound || return 1
    problem="$engine has not got $config under that name"
    [ $is_present -eq 0 ] && record && say 6 "$name: loaded into $engine"
}

load() {
    own_directory "$state" || give_up "$problem"
    if recorded "$engine"; then
        [ -e "$layouts" ] || return 0
        if is_own directory "$layouts"; then
            release_layout
            return
        fi
        say 4 "$name: $engine has it already, but its layout cannot be removed: $problem"
        return 0
    fi
    [ ! -e "$layouts" ] || is_own directory "$layouts" || give_up "$problem"
    command -v "${client%% *}" > /dev/null || give_up "${client%% *} is not installed; install it"
    trap clean_up EXIT
    # Not every shell runs the trap for EXIT when a signal ends it; dash does not.
    trap 'exit 143' HUP INT TERM
    for pause in 2 6 18 -; do
        lock
        # Before the first try, the file can only be that of an interrupted load; later, it may be that of this run.
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
engine=$1 id=$2 name=$3 size=$4 config=$5 manifest=$6 top=$7 stream=${8-}
unit=kiwi_containers-$engine-$id.service loading=$state/.$engine-loading
layout=$layouts/$id
client=$engine pull="$engine pull" tag=$name
case $engine in
    containerd*)
        namespace=${engine#containerd} namespace=${namespace#:}
        client="ctr --namespace ${namespace:-k8s.io}" pull="$client images pull"
        ;;
esac
case $name in *@*) digest=${name##*@} tag=${name%%@*}:${digest%%:*}-$(printf %.12s "${digest#*:}") ;; esac
# Ten minutes, and one second for each MiB.
limit=$((600 + size / 1048576)) locked='' keeper='' tried='' cut_off='' loaded=''
load
