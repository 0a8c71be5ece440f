// SPDX-License-Identifier: Apache-2.0
// The same work as nodes.c.
package main

import (
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"sort"
	"strconv"
	"syscall"
	"time"
)

type node struct {
	next, previous *node
	value          uint64
	padding        [5]uint64
}

var ring *node
var seed uint64 = 3

func random(limit uint64) uint64 {
	seed += 0x9e3779b97f4a7c15
	z := seed
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	z ^= z >> 31
	return ((z >> 32) * limit) >> 32
}

func link(previous, n *node) *node {
	n.previous, n.next = previous, previous.next
	previous.next.previous = n
	previous.next = n
	return n
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

func shuffle(count int) {
	all := make([]*node, 0, count)
	n := ring
	for i := 0; i < count; i++ {
		all = append(all, n)
		n = n.next
	}
	for i := count - 1; i > 0; i-- {
		k := int(random(uint64(i + 1)))
		all[i], all[k] = all[k], all[i]
	}
	for i := range all {
		all[i].next = all[(i+1)%count]
		all[i].previous = all[(i+count-1)%count]
	}
}

func argument(i, fallback int) int {
	if len(os.Args) > i {
		fallback, _ = strconv.Atoi(os.Args[i])
	}
	return fallback
}

func main() {
	count, seconds := argument(1, 1<<24), float64(argument(2, 12))
	start := time.Now()
	ring = &node{}
	ring.next, ring.previous = ring, ring
	last := ring
	for i := 1; i < count; i++ {
		last = link(last, &node{value: uint64(i)})
	}
	metric("build_s", time.Since(start).Seconds())
	force("mark_ordered")
	shuffle(count)
	force("mark_shuffled")

	// Latencies by eighths of a doubling of nanoseconds, as in gcbench.h.
	var latency [512]uint64
	var batches, longest uint64
	cursor, value := ring, uint64(count)
	var added, removed uint64
	cpu, churn := cpuSeconds(), time.Now()
	now := churn
	for now.Sub(churn).Seconds() < seconds {
		for i := 0; i < 200; i++ {
			for step := random(3); step > 0; step-- {
				cursor = cursor.next
			}
			added += value
			link(cursor, &node{value: value})
			value++
			victim := cursor.next.next
			if victim == ring {
				victim = victim.next
			}
			removed += victim.value
			victim.previous.next = victim.next
			victim.next.previous = victim.previous
			if i%50 == 0 {
				cursor = cursor.next.next
			}
		}
		then := now
		now = time.Now()
		ns := uint64(now.Sub(then).Nanoseconds()) + 8
		log := 63 - bits.LeadingZeros64(ns)
		latency[log*8+int(ns>>(log-3)&7)]++
		batches++
		if ns > longest {
			longest = ns
		}
	}
	metric("churn_batches_per_s", float64(batches)/now.Sub(churn).Seconds())
	metric("churn_cpu_s", cpuSeconds()-cpu)
	quantile := func(part float64) float64 {
		var seen uint64
		for i, c := range latency {
			seen += c
			if float64(seen) >= part*float64(batches) {
				return float64(uint64(8+i%8)<<(i/8)) / 8 / 1000
			}
		}
		return 0
	}
	metric("batch_p50_us", quantile(0.5))
	metric("batch_p99_us", quantile(0.99))
	metric("batch_p999_us", quantile(0.999))
	metric("batch_max_us", float64(longest)/1000)

	var sum, length uint64
	for n := ring.next; n != ring; n = n.next {
		sum += n.value
		length++
	}
	if length != uint64(count-1) || sum+removed != added+uint64(count)*uint64(count-1)/2 {
		fmt.Fprintln(os.Stderr, "wrong: the ring has lost nodes")
		os.Exit(1)
	}
	fmt.Printf("checksum %016x\n", count)
}
