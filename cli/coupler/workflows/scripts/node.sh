# Kubernetes' node NODE, asked and taken out by kubectl on a control node, as WHAT says: look, drain or delete.
# Prints kubectl=missing where there is none, node=Ready, NotReady or absent for look, and problem= and why it failed.
export PATH="$PATH:/opt/bin" LC_ALL=C KUBECONFIG=/etc/coupler/kubernetes/addons.kubeconfig
if ! command -v kubectl > /dev/null; then
    echo kubectl=missing
    exit 0
fi
kube() { kubectl --cache-dir=/run/coupler/kubectl --request-timeout=20s "$@" < /dev/null 2>&1; }
case $WHAT in
    look)
        said=$(kube get node "$NODE" --output='jsonpath={.status.conditions[?(@.type=="Ready")].status}')
        status=$?
        case $status:$said in
            0:True) echo node=Ready ;;
            0:*) echo node=NotReady ;;
            *NotFound*) echo node=absent ;;
            *) printf 'problem=%s\n' "$(printf '%s' "$said" | tail -n 1)" ;;
        esac
        exit 0
        ;;
    drain)
        # For what a pod takes to end, if it may end: a budget of its own may forbid that for as long as it likes.
        set -- drain "$NODE" --ignore-daemonsets --delete-emptydir-data --force --timeout="${PATIENCE}s"
        ;;
    delete) set -- delete node "$NODE" --ignore-not-found ;;
esac
said=$(kube "$@") || printf 'problem=%s\n' "$(printf '%s' "$said" | tail -n 1)"
