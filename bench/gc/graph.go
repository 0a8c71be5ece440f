// SPDX-License-Identifier: Apache-2.0
// The same work as graph.c.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"syscall"
	"time"
)

type node struct {
	child   [2]*node
	value   uint64
	padding [5]uint64
}

var root *node
var seed uint64 = 4

func random(limit uint64) uint64 {
	seed += 0x9e3779b97f4a7c15
	z := seed
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return ((z >> 32) * limit) >> 32
}

func cpuSeconds() float64 {
	var use syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &use)
	return float64(use.Utime.Sec+use.Stime.Sec) + float64(use.Utime.Usec+use.Stime.Usec)*1e-6
}

func metric(name string, value float64) { fmt.Printf("metric %s %.6g\n", name, value) }

func force(what string) {
	var cpu, wall []float64
	for i := 0; i < 3; i++ {
		c, w := cpuSeconds(), time.Now()
		runtime.GC()
		cpu = append(cpu, cpuSeconds()-c)
		wall = append(wall, time.Since(w).Seconds())
	}
	sort.Float64s(cpu)
	sort.Float64s(wall)
	metric(what+"_cpu_s", cpu[1])
	metric(what+"_wall_s", wall[1])
}

func argument(i, fallback int) int {
	if len(os.Args) > i {
		fallback, _ = strconv.Atoi(os.Args[i])
	}
	return fallback
}

func link(all []*node) {
	count := len(all)
	for i, n := range all {
		for c := 0; c < 2; c++ {
			n.child[c] = nil
			if 2*i+1+c < count {
				n.child[c] = all[2*i+1+c]
			}
		}
	}
	root = all[0]
}

func list(n *node, all []*node) {
	all[n.value] = n
	for _, child := range n.child {
		if child != nil {
			list(child, all)
		}
	}
}

func sum(n *node) uint64 {
	if n == nil {
		return 0
	}
	return n.value + sum(n.child[0]) + sum(n.child[1])
}

func main() {
	count := argument(1, 1<<24)
	all := make([]*node, count)
	start := time.Now()
	for i := range all {
		all[i] = &node{value: uint64(i)}
	}
	metric("build_s", time.Since(start).Seconds())
	link(all)
	all = nil
	force("mark_ordered")
	all = make([]*node, count)
	list(root, all)
	for i := count - 1; i > 0; i-- {
		k := int(random(uint64(i + 1)))
		all[i], all[k] = all[k], all[i]
	}
	link(all)
	all = nil
	force("mark_shuffled")
	if sum(root) != uint64(count)*uint64(count-1)/2 {
		fmt.Fprintln(os.Stderr, "wrong: the tree has lost nodes")
		os.Exit(1)
	}
	fmt.Printf("checksum %016x\n", count)
}
