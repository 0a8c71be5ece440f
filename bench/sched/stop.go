// SPDX-License-Identifier: Apache-2.0
// The same with goroutines and runtime.GC.
package main

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type node struct {
	next  *node
	bytes [100]byte
}

func main() {
	parked, _ := strconv.Atoi(os.Args[1])
	collections, _ := strconv.Atoi(os.Args[2])
	var wait, ready sync.WaitGroup
	gate := make(chan int)
	var stop int32
	wait.Add(parked + 2)
	ready.Add(parked)
	for i := 0; i < parked; i++ {
		go func() { ready.Done(); <-gate; wait.Done() }()
	}
	ready.Wait()
	for i := 0; i < 2; i++ {
		go func() {
			var list *node
			for n := 0; atomic.LoadInt32(&stop) == 0; n++ {
				list = &node{next: list}
				if n%1000 == 999 {
					list = nil
				}
			}
			runtime.KeepAlive(list)
			wait.Done()
		}()
	}
	for i := 0; i < collections; i++ {
		runtime.GC()
		time.Sleep(20 * time.Millisecond)
	}
	atomic.StoreInt32(&stop, 1)
	close(gate)
	wait.Wait()
}
