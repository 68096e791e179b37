#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The guest's first process: makes the system usable, says so, and keeps a shell at the console.
#
# A command line that ends in `cloister.run=COMMAND` has COMMAND run first; all behind the sign belongs to it, so
# write ` -- ` before it to keep the kernel from reading its words as options.
busybox=/bin/busybox

$busybox mkdir -p /etc /root /run /sbin /tmp /usr/bin /usr/sbin
$busybox mount -t devtmpfs dev /dev
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mkdir -p /dev/pts
$busybox mount -t devpts devpts /dev/pts
$busybox --install -s

export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/ TERM=linux
hostname guest

while read -r module; do
    insmod "/lib/modules/$module" || echo "Cloister guest: $module does not load"
done < /lib/modules/order

# `poweroff`, `reboot` and `halt` send these to the first process.
trap 'sync; busybox poweroff -f' USR2
trap 'sync; busybox reboot -f' TERM
trap 'sync; busybox halt -f' USR1

echo "Cloister guest: init is up"

read -r words < /proc/cmdline
case "$words" in
*cloister.run=*)
    sh -c "${words#*cloister.run=}"
    echo "Cloister guest: the command ended with $?"
    ;;
esac

while :; do
    # A shell in a session of its own, with the real terminal behind /dev/console, has job control.
    setsid cttyhack sh < /dev/console > /dev/console 2>&1 &
    wait $!
done
