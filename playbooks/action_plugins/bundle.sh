# Install the files of a bundle: the first part of each role's work. Runs as root, after lines that set:
#   check   true to change nothing and only tell what would be changed
#   bundle  a tar archive in base64, to be unpacked at /
# Installs only the files that differ, each whole or not at all, with the archive's modes. install.sh of the role goes
# on from there, with the bundle in $staging/root. The answer is Ansible's JSON: changed, failed, msg and files (what
# differed).
set -u
umask 077

answer() { # FAILED MESSAGE
    message=$(printf '%s' "$2" | tr -d '"\\' | tr '[:cntrl:]' ' ')
    printf '{"changed": %s, "failed": %s, "msg": "%s", "files": "%s"}\n' "$changed" "$1" "$message" "${files# }"
    exit 0
}

# same FILE MODE TARGET: whether the target is that file already.
same() {
    [ -f "$3" ] && cmp -s "$1" "$3" && [ "$(stat -c %a "$3")" = "$2" ]
}

# put FILE TARGET: a whole file or none, with the mode that it has in the bundle.
put() {
    { [ -d "${2%/*}" ] || mkdir -p "${2%/*}"; } && cp --preserve=mode "$1" "$2.new" && mv "$2.new" "$2"
}

# outdated FILE: note the units that name it in X-Coupler-Restart-On=, before it changes: whoever restarts them, in turns
# over the nodes, reads it there. It is gone after a boot, which starts everything.
outdated() {
    [ -d /run/coupler ] || return 0 # nothing of ours runs yet
    # shellcheck disable=SC2046 # the files of units have no blanks in their names
    grep -lsE "^X-Coupler-Restart-On=(.* )?$1( |\$)" $(find /etc/systemd/system -type f 2> /dev/null) /dev/null |
        sed -e 's|\.d/[^/]*$||' -e 's|.*/||' >> /run/coupler/outdated
}

changed=false files=
# One at a time: a run that was killed may still be at work here, and what it leaves are keys.
exec 9> /run/coupler-install.lock
flock 9
staging=/run/coupler-bundle
trap 'rm -rf "$staging"' EXIT
trap 'exit 1' HUP INT PIPE TERM
rm -rf "$staging"
mkdir -p "$staging/root" || answer true "cannot make a folder in /run"
message=$(printf '%s' "$bundle" | base64 -d 2>&1 | tar -xpf - -C "$staging/root" --no-same-owner 2>&1) ||
    answer true "cannot unpack the bundle: $message"

cd "$staging/root" || exit 1
find . -type f -printf '%m %P\n' | sort > "$staging/list"
while read -r mode file; do
    if same "$file" "$mode" "/$file"; then continue; fi
    changed=true files="$files /$file"
    if "$check"; then continue; fi
    outdated "/$file"
    message=$(put "$file" "/$file" 2>&1) || answer true "cannot write /$file: $message"
done < "$staging/list"
