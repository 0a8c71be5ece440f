// SPDX-License-Identifier: Apache-2.0
// The same operations of goroutines; a semaphore becomes a channel.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func cpu() float64 {
	var use syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	return float64(use.Utime.Nano() + use.Stime.Nano())
}

func pair(side func(me int)) {
	var wait sync.WaitGroup
	wait.Add(2)
	for me := 0; me < 2; me++ {
		go func(me int) { side(me); wait.Done() }(me)
	}
	wait.Wait()
}

func all(threads int, body func()) {
	var wait sync.WaitGroup
	wait.Add(threads)
	for i := 0; i < threads; i++ {
		go func() { body(); wait.Done() }()
	}
	wait.Wait()
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	what := os.Args[1]
	count, _ := strconv.Atoi(os.Args[2])
	threads := 4
	if len(os.Args) > 3 {
		threads, _ = strconv.Atoi(os.Args[3])
	}
	operations := count
	begin, cpuBegin := time.Now(), cpu()
	var mutex sync.Mutex
	counter, turn := 0, 0
	switch what {
	case "create":
		ended := make(chan int)
		for i := 0; i < count; i++ {
			go func() { ended <- 1 }()
			<-ended
		}
	case "detached":
		ended := make(chan int, 100)
		for i := 0; i < count; i += 100 {
			for k := 0; k < 100; k++ {
				go func() { ended <- 1 }()
			}
			for k := 0; k < 100; k++ {
				<-ended
			}
		}
	case "cond":
		operations *= 2
		cond := [2]*sync.Cond{sync.NewCond(&mutex), sync.NewCond(&mutex)}
		pair(func(me int) {
			mutex.Lock()
			for i := 0; i < count; i++ {
				for turn != me {
					cond[me].Wait()
				}
				turn = 1 - me
				cond[1-me].Signal()
			}
			mutex.Unlock()
		})
	case "sem":
		operations *= 2
		sems := [2]chan int{make(chan int, 1), make(chan int, 1)}
		sems[0] <- 1
		pair(func(me int) {
			for i := 0; i < count; i++ {
				<-sems[me]
				sems[1-me] <- 1
			}
		})
	case "pipe":
		operations *= 2
		var in, out [2]*os.File
		for i := range in {
			var err error
			in[i], out[i], err = os.Pipe()
			check(err)
		}
		pair(func(me int) {
			byte := []byte{0}
			for i := 0; i < count; i++ {
				if me == 1 {
					_, err := out[1].Write(byte)
					check(err)
				}
				_, err := in[1-me].Read(byte)
				check(err)
				if me == 0 {
					_, err := out[0].Write(byte)
					check(err)
				}
			}
		})
	case "mutex":
		for i := 0; i < count; i++ {
			mutex.Lock()
			counter++
			mutex.Unlock()
		}
	case "contended":
		all(threads, func() {
			for i := 0; i < count/threads; i++ {
				mutex.Lock()
				counter++
				mutex.Unlock()
			}
		})
	case "yield":
		all(threads, func() {
			for i := 0; i < count/threads; i++ {
				runtime.Gosched()
			}
		})
	}
	fmt.Printf("metric ns %.6g\n", float64(time.Since(begin).Nanoseconds())/float64(operations))
	fmt.Printf("metric cpu_ns %.6g\n", (cpu()-cpuBegin)/float64(operations))
}
