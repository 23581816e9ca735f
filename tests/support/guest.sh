#!/usr/bin/env bash
# Makes the guest of tests/support/guest.rs from Debian packages, which are unpacked and not installed:
#
#   guest.sh DIR    DIR/vmlinux and DIR/initrd: a kernel, busybox and the agent of QEMU
#
# What the guest does is on its command line: `writer` writes ascending numbers to its first disk and then to its second,
# each with a sync; with `causal=A` and `causal=B`, of two guests whose ports `peer` are joined, A writes a number to its
# second disk, has B write it to its own, and waits for that. `noagent` starts no agent.
set -euo pipefail
dir=$1
rm -rf "$dir"
mkdir -p "$dir/deb" "$dir/root" "$dir/tree"
dir=$(cd "$dir" && pwd)
root=$dir/root tree=$dir/tree

options=(-q)
[ "$(id -u)" -ne 0 ] || options+=(-o APT::Sandbox::User=root)
depends() { # package
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$1"
}
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -n 1)
mapfile -t libraries < <(depends qemu-guest-agent | grep -E '^lib(c6|glib2|pcre2|udev|numa|uring)' | sort -u)
(cd "$dir/deb" && apt-get "${options[@]}" download "$kernel" busybox-static qemu-guest-agent "${libraries[@]}")
for package in "$dir"/deb/*.deb; do dpkg -x "$package" "$root"; done

# The kernel without its decompressor, which takes longer to run than all else when every instruction is emulated.
python3 - "$root"/boot/vmlinuz-* "$dir/vmlinux" <<'EOF'
import re, subprocess, sys
image = open(sys.argv[1], "rb").read()
for magic, tool in ((b"\x02\x21\x4c\x18", "lz4"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x1f\x8b\x08", "gzip")):
    for at in (found.start() for found in re.finditer(re.escape(magic), image)):
        out = subprocess.run([tool, "-dc"], input=image[at:], capture_output=True).stdout
        if out.startswith(b"\x7fELF"):
            open(sys.argv[2], "wb").write(out)
            sys.exit()
sys.exit("no kernel found in " + sys.argv[1])
EOF

mkdir -p "$tree"/{bin,dev,proc,sys,run,tmp,data,data2,lib64,lib/modules,usr/sbin}
cp "$root/bin/busybox" "$tree/bin/" 2>/dev/null || cp "$root/usr/bin/busybox" "$tree/bin/"
for name in sh mount mkdir insmod usleep sleep sync cat cut grep echo printf ls; do ln -s busybox "$tree/bin/$name"; done
modules="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk virtio_console"
for module in $modules; do # in this order
    find "$root" -name "$module.ko*" -exec cp {} "$tree/lib/modules/" \;
done
find "$tree/lib/modules" -name '*.xz' -exec xz -d {} +
cp "$root/usr/sbin/qemu-ga" "$tree/usr/sbin/"
libs=$(find "$root" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)
LD_LIBRARY_PATH=$libs ldd "$tree/usr/sbin/qemu-ga" | grep -o '/[^ ]*' | while read -r library; do
    cp -L "$library" "$tree/lib64/"
done

cat >"$tree/init" <<EOF
#!/bin/sh
export PATH=/bin:/usr/sbin LD_LIBRARY_PATH=/lib64
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $modules; do [ ! -e /lib/modules/\$module.ko ] || insmod /lib/modules/\$module.ko; done
EOF
cat >>"$tree/init" <<'EOF'
said() { grep -q "$1" /proc/cmdline; }
port() { for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name 2>/dev/null)" = "$1" ] && echo /dev/${p##*/}; done; }
n=0; while [ ! -b /dev/vdb ] || [ -z "$(port org.qemu.guest_agent.0)" ]; do n=$((n+1)); [ $n -lt 100 ] || break; usleep 50000; done
mount -t ext4 /dev/vda /data
said causal= || mount -t ext4 /dev/vdb /data2
said noagent || qemu-ga -m virtio-serial -p "$(port org.qemu.guest_agent.0)" -t /run -l /run/agent.log &
echo "guest is ready"
write() { n=0; while :; do n=$((n+1)); echo $n >/data/number; sync /data/number; echo $n >/data2/number; sync /data2/number; done; }
raw() { printf '%-512s' $1 1<>/dev/vdb; sync /dev/vdb; }
first() { n=0; while :; do n=$((n+1)); raw $n; echo $n >&3; read answer <&3; done; }
second() { while read n <&3; do raw $n; echo $n >&3; done; }
said writer && write &
said causal=A && { exec 3<>"$(port peer)"; first; } &
said causal=B && { exec 3<>"$(port peer)"; second; } &
while :; do sleep 3600; done
EOF
chmod +x "$tree/init"
(cd "$tree" && find . | bin/busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$dir/initrd"
rm -rf "$root" "$tree" "$dir/deb"
