// SPDX-License-Identifier: Apache-2.0
// The same with goroutines.
package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"
)

func field(path, name string) float64 {
	text, _ := os.ReadFile(path)
	found := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+)`).FindSubmatch(text)
	value, _ := strconv.ParseFloat(string(found[1]), 64)
	return value
}

type memory struct{ rss, tables, threads, available float64 }

func look() memory {
	const status = "/proc/self/status"
	return memory{field(status, "VmRSS"), field(status, "VmPTE"), field(status, "Threads"),
		field("/proc/meminfo", "MemAvailable")}
}

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	var wait, ready sync.WaitGroup
	gate := make(chan int)
	wait.Add(count)
	ready.Add(count)
	before := look()
	begin := time.Now()
	if os.Args[1] == "sleep" {
		ms, _ := strconv.Atoi(os.Args[3])
		for i := 0; i < count; i++ {
			go func() { time.Sleep(time.Duration(ms) * time.Millisecond); wait.Done() }()
		}
		fmt.Printf("metric create_s %.6g\n", time.Since(begin).Seconds())
		fmt.Printf("metric live %d\n", count)
		wait.Wait()
	} else {
		for i := 0; i < count; i++ {
			go func() { ready.Done(); <-gate; wait.Done() }()
		}
		fmt.Printf("metric create_s %.6g\n", time.Since(begin).Seconds())
		fmt.Printf("metric live %d\n", count)
		ready.Wait()
		time.Sleep(200 * time.Millisecond)
		now, each := look(), float64(count)
		fmt.Printf("metric kernel_threads %.0f\n", now.threads)
		fmt.Printf("metric rss_kib %.6g\n", (now.rss-before.rss)/each)
		fmt.Printf("metric accounted_kib %.6g\n", (now.rss-before.rss+now.tables-before.tables+
			16*(now.threads-before.threads))/each)
		fmt.Printf("metric available_kib %.6g\n", (before.available-now.available)/each)
		wake := time.Now()
		close(gate)
		wait.Wait()
		fmt.Printf("metric join_s %.6g\n", time.Since(wake).Seconds())
	}
	fmt.Printf("metric total_s %.6g\n", time.Since(begin).Seconds())
}
