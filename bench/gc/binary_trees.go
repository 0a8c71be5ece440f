// SPDX-License-Identifier: Apache-2.0
// The same work as binary_trees.c.
package main

import (
	"fmt"
	"os"
	"strconv"
)

type node struct{ left, right *node }

func build(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{build(depth - 1), build(depth - 1)}
}

func count(n *node) uint64 {
	if n.left == nil {
		return 1
	}
	return 1 + count(n.left) + count(n.right)
}

func mix(sum, value uint64) uint64 {
	sum ^= value + 0x9e3779b97f4a7c15 + (sum << 6) + (sum >> 2)
	return sum * 0xff51afd7ed558ccd
}

func main() {
	depth := 20
	if len(os.Args) > 1 {
		depth, _ = strconv.Atoi(os.Args[1])
	}
	sum := count(build(depth))
	kept := build(depth - 1)
	for d := 4; d <= depth; d += 4 {
		var total uint64
		for i := 0; i < 1<<(depth-d+4); i++ {
			total += count(build(d))
		}
		sum = mix(sum, total)
	}
	fmt.Printf("checksum %016x\n", mix(sum, count(kept)))
}
