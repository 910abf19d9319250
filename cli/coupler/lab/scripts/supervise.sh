#!/bin/sh
# Run one lab machine until it is switched off. Started in network and mount namespaces of its own, so that the
# machine's disk, addresses and cable go away with its last process, however that ends. From the environment:
#   MACHINE         name for systemd-nspawn          NODE     host name
#   LOWER           read-only layers of the disk     DISK     folder with upper, work, root, containers, containerd
#   ADDRESS GATEWAY address with prefix length, and the host's address
#   GROUPS_OF_MACHINE   cgroups to run in, one in each hierarchy
set -eu

ip -batch - <<EOF
link set lo up
link set host0 up
address add $ADDRESS dev host0
route add default via $GATEWAY
EOF
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$DISK/upper,workdir=$DISK/work" "$DISK/root"

# systemd-nspawn keeps locks here, which nobody clears away when it is killed.
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn

# The supervisor sits in GROUP/supervisor and the machine in GROUP/machine: version 2 lets a group hand controllers
# down only while it holds no process itself.
for group in $GROUPS_OF_MACHINE; do
    mkdir -p "$group"
    if [ -e "$group/cpuset.cpus" ] && [ -e "$group/cgroup.clone_children" ]; then
        # Version 1: a new cpuset is empty, and an empty one takes no process.
        cat "${group%/*}/cpuset.cpus" >"$group/cpuset.cpus"
        cat "${group%/*}/cpuset.mems" >"$group/cpuset.mems"
        echo 1 >"$group/cgroup.clone_children"
    fi
    mkdir -p "$group/supervisor"
    echo $$ >"$group/supervisor/cgroup.procs"
    if [ -e "$group/cgroup.subtree_control" ]; then
        # shellcheck disable=SC2013 # the file is one line of words
        for controller in $(cat "$group/cgroup.controllers"); do
            echo "+$controller" >"$group/cgroup.subtree_control" || :
        done
    fi
done

boot() {
    for group in $GROUPS_OF_MACHINE; do
        [ ! -d "$group/machine" ] || find "$group/machine" -depth -type d -exec rmdir {} +
        mkdir "$group/machine"
    done
    # A process of its own enters the groups and becomes systemd-nspawn.
    # shellcheck disable=SC2016
    SYSTEMD_NSPAWN_API_VFS_WRITABLE=network sh -ec '
        for group in $GROUPS_OF_MACHINE; do echo $$ >"$group/machine/cgroup.procs"; done
        exec "$@"
    ' sh systemd-nspawn --quiet --directory="$DISK/root" --machine="$MACHINE" --hostname="$NODE" \
        --register=no --keep-unit --network-namespace-path=/proc/$$/ns/net --capability=CAP_NET_ADMIN \
        --console=read-only --link-journal=no --resolv-conf=off --timezone=off --kill-signal=SIGRTMIN+3 \
        --system-call-filter='@keyring bpf' --bind-ro="$DISK/root/usr:/usr" \
        --bind="$DISK/containers:/var/lib/containers" --bind="$DISK/containerd:/var/lib/containerd" \
        /usr/lib/coupler-lab/init
}

# systemd-nspawn ends with 133 when the machine asked for a reboot.
while status=0; boot || status=$?; [ "$status" -eq 133 ]; do :; done
exit "$status"
