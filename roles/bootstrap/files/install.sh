# shellcheck disable=SC2034 # what is changed is told by answer(), of bundle.sh
# Runs behind bundle.sh, which has installed the node's files: if the boot stub is among what differed, or was never
# applied, coreos-cloudinit applies it.
stub=/var/lib/coupler/boot-stub.yaml
applied=/var/lib/coupler/boot-stub.applied

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
