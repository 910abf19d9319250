#!/bin/sh
# node_bundle: an Ansible module in POSIX sh, for nodes without Python.
#
# Takes `bundle`: a tar archive in base64, unpacked at /. Installs only the files that differ, each whole or not at
# all, with the archive's modes. If the boot stub is among them, or was never applied, coreos-cloudinit applies it.
# Answers with Ansible's JSON: changed, files (what differed), failed and msg.
set -u
umask 077

# Ansible passes the arguments of such a module as a file of quoted NAME=VALUE words.
. "$1"

stub=/var/lib/coupler/boot-stub.yaml
applied=/var/lib/coupler/boot-stub.applied

answer() { # STATE MESSAGE
    message=$(printf '%s' "$2" | tr -d '"\\' | tr '[:cntrl:]' ' ')
    printf '{"changed": %s, "failed": %s, "msg": "%s", "files": "%s"}\n' "$changed" "$1" "$message" "${files# }"
    exit 0
}

changed=false files=
staging=$(mktemp -d /run/coupler-bundle.XXXXXX) || answer true "cannot make a folder in /run"
trap 'rm -rf "$staging"' EXIT
message=$(printf '%s' "$bundle" | base64 -d 2>&1 | tar -xf - -C "$staging" --no-same-owner 2>&1) ||
    answer true "cannot unpack the bundle: $message"

cd "$staging" || exit 1
for file in $(find . -type f | sort); do
    target=${file#.}
    mode=$(stat -c %a "$file")
    if cmp -s "$file" "$target" && [ "$(stat -c %a "$target")" = "$mode" ]; then
        continue
    fi
    changed=true files="$files $target"
    [ "${_ansible_check_mode:-False}" = False ] || continue
    message=$(mkdir -p "${target%/*}" && cp "$file" "$target.$$" 2>&1 && chmod "$mode" "$target.$$" && mv "$target.$$" "$target" 2>&1) ||
        answer true "cannot write $target: $message"
done

if ! cmp -s "$stub" "$applied"; then
    changed=true
    if [ "${_ansible_check_mode:-False}" = False ]; then
        message=$(coreos-cloudinit --from-file="$stub" 2>&1) || answer true "cannot apply the boot stub: $message"
        cp "$stub" "$applied.new" && mv "$applied.new" "$applied"
    fi
fi
answer false ""
