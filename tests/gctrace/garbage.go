// SPDX-License-Identifier: Apache-2.0

// Makes garbage so that the Go runtime prints every kind of trace line.
package main

import (
	"runtime"
	"runtime/debug"
	"time"
)

type node struct {
	left, right *node
	payload     [48]byte
}

var sink *node

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

func main() {
	keep := tree(14)
	for i := 0; i < 60; i++ {
		sink = tree(13)
	}
	runtime.GC()
	debug.SetGCPercent(20)
	for i := 0; i < 20; i++ {
		sink = tree(12)
	}
	debug.FreeOSMemory()
	time.Sleep(20 * time.Millisecond)
	runtime.KeepAlive(keep)
}
