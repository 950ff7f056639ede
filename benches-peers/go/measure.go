package main

import (
	"os"
	"sort"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// As the Rust programs tell it.
type measured struct {
	P50         float64  `json:"p50_ns"`
	P99         *float64 `json:"p99_ns"`
	P999        *float64 `json:"p999_ns"`
	Calls       int      `json:"calls"`
	WallNs      int64    `json:"wall_ns"`
	HostCPUNs   int64    `json:"host_cpu_ns"`
	PluginCPUNs int64    `json:"plugin_cpu_ns"`
}

const maxSamples = 1 << 22

func measure(told job, pid int, call func() error) (*measured, error) {
	if _, _, err := rounds(told.InFlight, time.Duration(told.WarmUpMs)*time.Millisecond, 1, 1, call); err != nil {
		return nil, err
	}
	each := (told.MinCalls + told.InFlight - 1) / told.InFlight
	hostBefore, pluginBefore, start := cpuNs(os.Getpid()), cpuNs(pid), time.Now()
	samples, calls, err := rounds(told.InFlight, time.Duration(told.TimeMs)*time.Millisecond, each, maxSamples/told.InFlight, call)
	if err != nil {
		return nil, err
	}
	out := &measured{Calls: calls, WallNs: time.Since(start).Nanoseconds()}
	out.HostCPUNs, out.PluginCPUNs = cpuNs(os.Getpid())-hostBefore, cpuNs(pid)-pluginBefore
	sort.Slice(samples, func(a, b int) bool { return samples[a] < samples[b] })
	rank := func(perMille int) float64 { return float64(samples[(len(samples)*perMille+999)/1000-1]) }
	out.P50 = rank(500)
	if len(samples) >= 100 {
		p99 := rank(990)
		out.P99 = &p99
	}
	if len(samples) >= 1000 {
		p999 := rank(999)
		out.P999 = &p999
	}
	return out, nil
}

// Lets `callers` goroutines call for a while.
func rounds(callers int, length time.Duration, least, room int, call func() error) (all []uint32, calls int, failed error) {
	var group sync.WaitGroup
	var lock sync.Mutex
	for i := 0; i < callers; i++ {
		group.Add(1)
		samples := make([]uint32, 0, room)
		go func() {
			defer group.Done()
			start := time.Now()
			before, made := start, 0
			var err error
			for err == nil && (made < least || before.Sub(start) < length) {
				err = call()
				now := time.Now()
				if made++; len(samples) < room {
					samples = append(samples, uint32(now.Sub(before)))
				}
				before = now
			}
			lock.Lock()
			defer lock.Unlock()
			all, calls = append(all, samples...), calls+made
			if err != nil {
				failed = err
			}
		}()
	}
	group.Wait()
	return all, calls, failed
}

// The processor time of a process of ours, all threads together.
func cpuNs(pid int) int64 {
	const processClock = 2
	var time syscall.Timespec
	clock := int32(^pid)<<3 | processClock
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&time)), 0)
	return time.Nano()
}
