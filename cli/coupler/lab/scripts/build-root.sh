#!/bin/sh
# Build the root file system that all lab machines share.
#   build-root.sh RELEASE PACKAGES FILES OUTPUT
# RELEASE is Debian's code name, PACKAGES a comma-separated list, FILES the folder laid over the root. OUTPUT, an
# existing folder, gets root.squashfs, and the folder `programs` with etcd, etcdctl and the archive of the CNI plugins of
# that release: programs/NAME/VERSION/FILE.
# Run it in mount and process namespaces of its own: whatever ends it then also ends its children and mounts.
set -eu
release=$1 packages=$2 files=$3 output=$4
root=$output/root

mmdebstrap --quiet --variant=essential --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$packages" \
    --customize-hook="cd '$output' && APT_CONFIG=\$MMDEBSTRAP_APT_CONFIG apt-get -qq download etcd-server etcd-client containernetworking-plugins" \
    "$release" "$root"

chroot "$root" groupadd --gid 500 core
chroot "$root" useradd --uid 500 --gid core --groups sudo,systemd-journal --create-home --shell /bin/bash core
cp -R "$files/." "$root/"
chmod 0755 "$root/usr/bin/update-ssh-keys" "$root/usr/bin/locksmithctl" "$root/usr/lib/coupler-lab/init"
chmod 0440 "$root/etc/sudoers.d/coupler-lab"
echo VARIANT_ID=coupler-lab >>"$root/usr/lib/os-release"
mkdir -p "$root/opt/bin" "$root/var/log/journal" "$root/var/lib/containers" "$root/var/lib/containerd"

# Whatever waits for hardware, a console or a calendar has nothing to do here; the network is there before the machine.
# The programs haproxy and nginx are for units of our own; containerd waits for one that wants it.
for unit in getty.target console-getty.service systemd-udevd.service systemd-udev-trigger.service \
    systemd-networkd.service systemd-networkd-wait-online.service systemd-resolved.service systemd-timesyncd.service \
    systemd-pstore.service systemd-update-utmp.service systemd-update-utmp-runlevel.service e2scrub_reap.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer man-db.timer \
    haproxy.service nginx.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -f "$root/etc/systemd/system/multi-user.target.wants/containerd.service"

# Each machine gets its own name, identity and host key.
rm -f "$root/etc/hostname" "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt" "$root"/var/lib/dpkg/*-old "$root"/var/log/*.log "$root/var/log/apt"
mkdir -p "$root/var/lib/apt/lists" "$root/var/cache/apt"

if [ -n "$(find "$root/usr/bin" "$root/usr/lib" -maxdepth 1 -name 'python*')" ]; then
    echo "a package brought Python into the root; nodes have none" >&2
    exit 1
fi

mkdir "$root/tmp/packages"
for package in "$output"/*.deb; do
    dpkg-deb --extract "$package" "$root/tmp/packages"
done
etcd=$(chroot "$root" /tmp/packages/usr/bin/etcd --version | sed -n 's/^etcd Version: //p')
plugins=$(dpkg-deb --field "$output"/containernetworking-plugins_*.deb Version | sed 's/[^0-9.].*//')
for program in etcd etcdctl; do
    install -D "$root/tmp/packages/usr/bin/$program" "$output/programs/$program/$etcd/$program"
done
mkdir -p "$output/programs/cni-plugins/$plugins"
tar -C "$root/tmp/packages/usr/lib/cni" -czf "$output/programs/cni-plugins/$plugins/cni-plugins-linux-amd64-v$plugins.tgz" .
rm -rf "$root/tmp/packages"

mksquashfs "$root" "$output/root.squashfs" -comp zstd -no-xattrs -noappend -no-progress -quiet
rm -rf "$root" "$output"/*.deb
