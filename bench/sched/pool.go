// SPDX-License-Identifier: Apache-2.0
// The same pool with goroutines, and sync.Mutex and sync.Cond as in the C program.
package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

func work(seed uint64) uint64 {
	state := seed*0x9e3779b97f4a7c15 + 0x632be59bd9b4e019
	x := uint64(0)
	for i := 0; i < 1000; i++ {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
		z = (z ^ (z >> 27)) * 0x94d049bb133111eb
		x ^= z ^ (z >> 31)
	}
	return x
}

func main() {
	const room = 1024
	threads, _ := strconv.Atoi(os.Args[1])
	tasks, _ := strconv.Atoi(os.Args[2])
	var mutex sync.Mutex
	notEmpty, notFull := sync.NewCond(&mutex), sync.NewCond(&mutex)
	var queue [room]uint64
	var head, tail int
	var sum uint64
	closed := false
	var wait sync.WaitGroup
	wait.Add(threads)
	begin := time.Now()
	for i := 0; i < threads; i++ {
		go func() {
			own := uint64(0)
			for {
				mutex.Lock()
				for head == tail && !closed {
					notEmpty.Wait()
				}
				if head == tail {
					break
				}
				task := queue[head%room]
				head++
				notFull.Signal()
				mutex.Unlock()
				own += work(task)
			}
			sum += own
			mutex.Unlock()
			wait.Done()
		}()
	}
	for i := 0; i < tasks; i++ {
		mutex.Lock()
		for tail-head == room {
			notFull.Wait()
		}
		queue[tail%room] = uint64(i)
		tail++
		notEmpty.Signal()
		mutex.Unlock()
	}
	mutex.Lock()
	closed = true
	notEmpty.Broadcast()
	mutex.Unlock()
	wait.Wait()
	fmt.Printf("metric s %.6g\n", time.Since(begin).Seconds())
	fmt.Printf("checksum %016x\n", sum)
}
