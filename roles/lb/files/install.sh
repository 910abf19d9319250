# shellcheck disable=SC2034 # what is changed and which files is told by answer(), of bundle.sh
# Runs behind bundle.sh, which has installed units and configuration: fetches the programs, and brings up what does not
# run as the files say. A registrator that is restarted leaves every route as it is. A balancer reads its configuration
# anew without losing a connection; only another unit, or another program, is a restart.
folder=/etc/coupler-lb
units=/etc/systemd/system
state=/var/lib/coupler-lb
store=/opt/coupler
user=coupler-lb
PATH=/opt/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin

# fetch SHA256 URL…: the file with this checksum in $state/download, from the first URL that has it.
fetch() {
    checksum=$1
    shift
    for url; do
        curl --silent --show-error --fail --location --connect-timeout 10 --speed-limit 1000 --speed-time 30 \
            --retry 3 --retry-delay 1 --output "$state/download" "$url" 2> "$staging/said" || continue
        [ "$(sha256sum < "$state/download" | cut -d' ' -f1)" != "$checksum" ] || return 0
        echo "$url has another checksum than $checksum" > "$staging/said"
    done
    return 1
}

# layers: the layers of the image in the folder $place.new/layers, the lowest first, as Docker lists them or else OCI.
layers() (
    cd "$place.new/layers" || return 1
    if [ -e manifest.json ]; then
        tr -d ' \n' < manifest.json | sed -n 's/.*"Layers":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' '\n'
    else
        blob=$(tr -d ' \n' < index.json | sed -n 's/.*"digest":"\([a-z0-9]*\):\([0-9a-f]*\)".*/blobs\/\1\/\2/p')
        tr -d ' \n' < "$blob" | sed -n 's/.*"layers":\[\([^]]*\)\].*/\1/p' | tr ',' '\n' |
            sed -n 's/.*"digest":"\([a-z0-9]*\):\([0-9a-f]*\)".*/blobs\/\1\/\2/p'
    fi
)

# unpack_image NAME: what is in an image, in $place.new/root, and a script NAME that runs the program of this name in it,
# with the image's own loader and libraries: no container, so it is a service like any other.
unpack_image() {
    mkdir "$place.new/root" "$place.new/layers" || return 1
    tar -xf "$state/download" -C "$place.new/layers" || return 1
    layers=$(layers)
    [ -n "$layers" ] || { echo "its archive lists no layers"; return 1; }
    for layer in $layers; do
        # Device files cannot be made everywhere, and whiteouts only hide what nobody looks for here.
        tar -xf "$place.new/layers/$layer" -C "$place.new/root" --no-same-owner --exclude='dev/*' --exclude='.wh.*' || return 1
    done
    rm -rf "$place.new/layers"
    cd "$place.new/root" || return 1
    # An image has /lib as a folder or as a link into /usr: of a file, its path without links.
    program=$(find usr/local/sbin usr/sbin usr/local/bin usr/bin -name "$1" -type f -perm -1 2> /dev/null | head -n 1)
    [ -n "$program" ] || { echo "it has no $1"; return 1; }
    loader=$(find lib lib64 usr/lib usr/lib64 \( -name 'ld-linux*.so.*' -o -name 'ld-musl-*.so.1' \) -type f 2> /dev/null | head -n 1)
    libraries=$(find lib lib64 usr/lib usr/lib64 usr/local/lib -maxdepth 2 -name '*.so*' -printf "$place/root/%h\n" 2> /dev/null |
        sort -u | paste -sd:)
    run="$place/root/$program"
    [ -z "$loader" ] || run="$place/root/$loader --argv0 \"\$0\" --library-path $libraries $run"
    printf '#!/bin/sh\nexec %s "$@"\n' "$run" > "$place.new/$1" && chmod 0755 "$place.new/$1"
}

# unpack MEMBER NAME: the program, all of the archive, or an image, in the folder $place, for everybody to run.
unpack() (
    umask 022
    rm -rf "$place.new" && mkdir -p "$place.new" || return 1
    case $1 in
        -) install -m 0755 "$state/download" "$place.new/$2" ;;
        @image) unpack_image "$2" ;;
        .) tar -xzf "$state/download" -C "$place.new" --no-same-owner ;;
        *) tar -xzOf "$state/download" "$1" > "$place.new/$2" && chmod 0755 "$place.new/$2" ;;
    esac && rm -rf "$place" && mv "$place.new" "$place"
)

# program NAME VERSION SHA256 MEMBER TARGET URL…: a link at TARGET to the program, in a folder named after its checksum.
program() {
    name=$1 checksum=$3 member=$4 target=$5 what="$1 ${2#-}"
    shift 5
    place=$store/$name-$(printf %.16s "$checksum")
    [ "$member" = . ] && link=$place || link=$place/$name
    if [ "$(readlink "$target")" = "$link" ] && [ -e "$link" ]; then return; fi
    changed=true files="$files $target"
    if "$check"; then return; fi
    [ "$checksum" != - ] || answer true "the SHA-256 of $what is not known: give artifacts.$name.sha256 in cluster.yaml"
    [ $# -gt 0 ] || answer true "no server is known to have $what"
    [ -e "$link" ] || fetch "$checksum" "$@" || answer true "no server has $what: $(tail -n 1 "$staging/said")"
    [ -e "$link" ] || message=$(unpack "$member" "$name" 2>&1) || answer true "$what cannot be unpacked: $message"
    rm -f "$state/download"
    # A program that does not run here takes no other's place.
    if [ "$member" = . ]; then
        message=$("$link/$name" --help 2>&1) || answer true "$what does not run: $(echo "$message" | tail -n 1)"
    elif [ "$member" = @image ]; then
        message=$("$link" -v 2>&1) || answer true "$what does not run: $(echo "$message" | tail -n 1)"
    fi
    message=$( (umask 022 && mkdir -p "${target%/*}" && ln -sfn "$link" "$target.new" && mv -T "$target.new" "$target") 2>&1) ||
        answer true "$what cannot be put in place: $message"
}

# told UNIT: why it does not run, from its journal.
told() {
    journalctl --quiet --boot --unit="$1" --output=cat --lines=20 | grep -v '^\(Starting\|Started\|Stopp\|Scheduled\)' | tail -n 3
}

# settle UNIT VERB PROGRAM FILE…: VERB the unit if it does not run, or runs another program, or as other files said.
settle() {
    unit=$1 verb=$2 link=$3
    shift 3
    stamp=$state/$unit.$verb
    sum=$({ readlink "$link"; cat "$@"; } 2> /dev/null | sha256sum)
    if [ "$(cat "$stamp" 2> /dev/null)" = "$sum" ] && systemctl --quiet is-active "$unit"; then return; fi
    changed=true
    if "$check"; then return; fi
    systemctl --quiet is-active "$unit" || verb=restart
    if [ "$verb" = restart ] || [ -e "$stamp" ]; then
        systemctl "$verb" "$unit" 2> /dev/null || answer true "$unit does not run: $(told "$unit")"
    fi
    echo "$sum" > "$stamp"
}

"$check" || mkdir -p "$state" || answer true "cannot make $state"
# What it runs as must be able to look into it.
[ "$(stat -c %a "$folder" 2> /dev/null)" = 755 ] || "$check" || chmod 0755 "$folder"
while read -r line; do
    # shellcheck disable=SC2086 # the columns are words of their own
    case $line in '' | '#'*) ;; *) program $line ;; esac
done < "$staging/root$folder/programs"

if ! id "$user" > /dev/null 2>&1; then
    changed=true
    "$check" || message=$(systemd-sysusers /etc/sysusers.d/coupler-lb.conf 2>&1) || answer true "no user $user: $message"
fi

# What is not wanted any more: a program of ours in place of the system's, credentials, another kind of balancer, and an
# address that moved.
for target in /opt/bin/haproxy /opt/bin/nginx; do
    case $(readlink "$target") in "$store"/*) ;; *) continue ;; esac
    if grep -q " $target " "$staging/root$folder/programs"; then continue; fi
    changed=true files="$files $target"
    "$check" || rm -f "$target"
done
for secret in /etc/coupler/pki/kubernetes/registrator.kubeconfig /etc/coupler/pki/vulcand/seal-key; do
    if [ -e "$secret" ] && [ ! -e "$staging/root$secret" ]; then
        changed=true files="$files $secret"
        "$check" || rm -f "$secret"
    fi
done
for kind in haproxy nginx address; do
    if [ -e "$units/coupler-$kind.service" ] && [ ! -e "$staging/root$units/coupler-$kind.service" ]; then
        changed=true files="$files $units/coupler-$kind.service"
        "$check" || { systemctl --quiet disable --now "coupler-$kind" &&
            rm -rf "$units/coupler-$kind.service" "$units/coupler-$kind.service.d" "$state/coupler-$kind."* &&
            systemctl daemon-reload; } || answer true "coupler-$kind cannot be stopped"
    fi
done

registrator=coupler-registrator.service address=coupler-address.service
for unit in "$staging/root$units"/coupler-*.service; do
    unit=${unit##*/}
    if [ "$(systemctl show -P NeedDaemonReload "$unit")" = yes ]; then
        changed=true
        "$check" || systemctl daemon-reload
    fi
    if ! systemctl --quiet is-enabled "$unit" 2> /dev/null; then
        changed=true
        "$check" || systemctl --quiet enable "$unit" || answer true "$unit cannot be enabled"
    fi
done
pki=/etc/coupler/pki
# It reads its credentials once, when it starts: they count as its files.
settle "$registrator" restart "$store/registrator" "$units/$registrator" "$units/$registrator.d"/*.conf \
    "$folder/registrator.yaml" "$pki/etcd/ca.crt" "$pki"/*/registrator.*
for kind in haproxy nginx; do
    if [ -e "$staging/root$units/coupler-$kind.service" ]; then
        settle "coupler-$kind.service" restart "/opt/bin/$kind" "$units/coupler-$kind.service"
        settle "coupler-$kind.service" reload "/opt/bin/$kind" "$folder/$kind".c*
    fi
done

# Last: it looks at the balancer before it stands for the address.
if [ -e "$staging/root$units/$address" ]; then
    settle "$address" restart "$store/registrator" "$units/$address" "$units/$address.d"/*.conf \
        "$folder/address.yaml" "$pki/etcd/ca.crt" "$pki/etcd"/registrator.*
fi

# Programs of earlier versions, once nothing runs them.
if ! "$check"; then
    for old in "$store"/*-????????????????; do
        used=false
        for target in "$store"/registrator /opt/bin/haproxy /opt/bin/nginx; do
            case $(readlink "$target") in "$old" | "$old"/*) used=true ;; esac
        done
        "$used" || rm -rf "$old"
    done
fi
answer false ""
