# SPDX-License-Identifier: GPL-2.0
# What the calls cost. With boot.sh --icount the nanoseconds are guest instructions. Kernels test
# their ciphers for a while after boot, which takes half of the one CPU.
while pidof cryptomgr_test > /dev/null; do
	sleep 1
done
/umcg-test bench 2000
