# shellcheck disable=SC2034 # what is changed is told by answer(), of bundle.sh
# Runs behind bundle.sh, which has installed the node's files: if the boot stub is among what differed, or was never
# applied, coreos-cloudinit applies it.
stub=/var/lib/coupler/boot-stub.yaml
applied=/var/lib/coupler/boot-stub.applied

# A bundle without the stub brings new certificates to a node, and says nothing of what else it may have.
if [ ! -e "$staging/root$stub" ]; then answer false ""; fi

# Certificates and keys of roles that the node does not have any more. Those of other making are not touched.
for file in /etc/coupler/pki/etcd/*.* /etc/coupler/pki/kubernetes/*.*; do
    case $file in *.crt | *.key | *.pub | */encryption.yaml) ;; *) continue ;; esac
    if [ ! -e "$file" ] || [ -e "$staging/root$file" ]; then continue; fi
    changed=true files="$files $file"
    "$check" || message=$(rm -f "$file" 2>&1) || answer true "cannot remove $file: $message"
done

if ! cmp -s "$stub" "$applied"; then
    changed=true
    if ! "$check"; then
        message=$(coreos-cloudinit --from-file="$stub" 2>&1 < /dev/null 9>&-) || answer true "cannot apply the boot stub: $message"
        cp "$stub" "$applied.new" && mv "$applied.new" "$applied"
        # Who comes this way may say anew whose commits the node takes.
        rm -f /var/lib/coupler/allowed_signers
    fi
fi
answer false ""
