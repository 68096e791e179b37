#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# The first process of a guest whose boot is measured: the line that ends the measurement, then off.
echo "Cloister guest: init is up"
exec /bin/busybox poweroff -f
