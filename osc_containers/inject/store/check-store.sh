#!/bin/sh
# Check that podman has the images of a read-only store:  check-store DIRECTORY SQUASHFS LIST UNIT
#
# kiwi_containers-store.service runs this script at each boot. LIST has a line for each image: ID and name. It needs
# only coreutils, systemd and podman.
set -u
export LC_ALL=C HOME="${HOME:-/root}"

directory=$1 squashfs=$2 list=$3 unit=$4

say() { # PRIORITY TEXT
    [ -n "${JOURNAL_STREAM-}" ] && printf '<%s>' "$1"
    printf '%s\n' "$2"
}

give_up() { # WHY
    say 3 "$directory: $1; checked again at the next boot, or by: systemctl restart $unit"
    exit 1
}

device() {
    stat -c %d -- "$1"
}

# A failed mount leaves an empty store, with which podman works as if there were none.
[ "$(device "$directory")" != "$(device "$directory/..")" ] ||
    give_up "$squashfs is not mounted (see: systemctl status $directory); the kernel needs squashfs with zstd, and loop"
command -v podman > /dev/null || give_up "podman is not installed; install it"
if ! output=$(timeout -k 30 120 podman images --all --quiet --no-trunc 2>&1); then
    problem="podman failed: $(printf %s "$output" | tr -s '[:cntrl:]' ' ' | head -c 600)"
    # Before version 5, podman lists no image at all if some image has layers that only the store of an earlier system
    # had. The others can be used nevertheless.
    output=
    while read -r id name; do
        timeout -k 30 120 podman image exists "$id" < /dev/null > /dev/null 2>&1
        case $? in
            0) output="$output sha256:$id" ;;
            1) ;;
            *) give_up "$problem" ;;
        esac
    done < "$list"
    say 4 "$directory: $problem"
fi
missing='' count=0
while read -r id name; do
    count=$((count + 1))
    case $output in *"sha256:$id"*) ;; *) missing="$missing $name" ;; esac
done < "$list"
[ -z "$missing" ] ||
    give_up "podman does not have$missing; additionalimagestores in /etc/containers/storage.conf must list this directory"
say 6 "$directory: podman has its images: $count"
