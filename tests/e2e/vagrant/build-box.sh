#!/bin/sh
# Build a Vagrant box for libvirt from the lab's root and Debian's cloud kernel: what a Flatcar box is to the Vagrantfile,
# without a download from Flatcar.
#   build-box.sh RELEASE ROOT APPLIER KEY OUTPUT
# RELEASE is Debian's code name, ROOT the lab's root.squashfs, APPLIER the folder with its /usr/bin/coreos-cloudinit,
# KEY a file with the public key that may log in: the one that every Vagrant knows, as in Flatcar's boxes. OUTPUT, an existing folder, gets `coupler.box`. Run it as root, in a mount namespace of its own.
set -eu
release=$1 squashfs=$2 applier=$3 key=$4 output=$5
root=$output/root

unsquashfs -quiet -no-progress -dest "$output/lab-root" "$squashfs" >/dev/null
mmdebstrap --quiet --variant=custom --skip=check/empty \
    --setup-hook="cp -a '$output/lab-root/.' \"\$1/\"" \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --include=linux-image-cloud-amd64,initramfs-tools,udev,zstd \
    "$release" "$root"
rm -rf "$output/lab-root"
cp -R "$applier/." "$root/"

# The lab's machines get their network and devices from outside; a virtual machine looks after them itself.
for unit in systemd-udevd systemd-udev-trigger systemd-networkd; do
    rm -f "$root/etc/systemd/system/$unit.service"
done
chroot "$root" systemctl --quiet enable systemd-networkd.service
cat >"$root/etc/systemd/network/10-vagrant.network" <<'UNIT'
[Match]
Name=eth0

[Network]
DHCP=ipv4

[DHCPv4]
ClientIdentifier=mac
UseRoutes=no
UNIT
cat >"$root/etc/systemd/system/ssh-host-keys.service" <<'UNIT'
[Unit]
Before=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl --quiet enable ssh-host-keys.service
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"

chroot "$root" /usr/bin/update-ssh-keys -u core -a vagrant <"$key"

cp "$root"/boot/vmlinuz-* "$output/vmlinuz"
cp "$root"/boot/initrd.img-* "$output/initrd"
truncate -s 3G "$output/disk"
mkfs.ext4 -q -F -d "$root" "$output/disk"
rm -rf "$root"
qemu-img convert -f raw -O qcow2 "$output/disk" "$output/box.img"
rm "$output/disk"

echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 3}' >"$output/metadata.json"
cat >"$output/Vagrantfile" <<'RUBY'
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "custom"
    libvirt.cpu_model = "qemu64"
    libvirt.kernel = File.join(__dir__, "vmlinuz")
    libvirt.initrd = File.join(__dir__, "initrd")
    libvirt.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"
    libvirt.management_network_mode = "none"
    libvirt.graphics_type = "none"
    libvirt.video_type = "none"
  end
end
RUBY
cd "$output"
tar -cf coupler.box metadata.json Vagrantfile box.img vmlinuz initrd
rm metadata.json Vagrantfile box.img vmlinuz initrd
