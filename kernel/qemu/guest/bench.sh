# SPDX-License-Identifier: GPL-2.0
# What the calls cost. With boot.sh --icount the nanoseconds are guest instructions.
for round in 1 2; do
	/umcg-test bench 2000 || exit 1
done
