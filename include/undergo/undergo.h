/* SPDX-License-Identifier: Apache-2.0 */
/*
 * undergo's optional C interface (C11). Every function is declared weak: a program that includes
 * this header also runs without the library; test the address before the call:
 *
 *     if (undergo_read_stats) undergo_read_stats(&stats, sizeof stats);
 *
 * All functions may be called from any thread; none may be called from a signal handler.
 */
#ifndef UNDERGO_UNDERGO_H
#define UNDERGO_UNDERGO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UNDERGO_WEAK __attribute__((weak, visibility("default")))

#define UNDERGO_STATS_CLASSES 80
#define UNDERGO_STATS_PAUSES 256
#define UNDERGO_PAUSE_BUCKETS 160

/* Objects of one size class. */
struct undergo_class_stats {
  uint32_t size;     /* bytes of a slot */
  uint32_t spans;    /* in use */
  uint64_t mallocs;  /* objects handed out so far */
  uint64_t frees;    /* objects freed so far */
};

/*
 * Modelled on Go's runtime.MemStats; field for field what its documentation says, for this heap.
 * Sizes are bytes. Objects count with their usable size. While other threads run the numbers are
 * a snapshot in which some may be newer than others.
 */
struct undergo_stats {
  uint64_t alloc;           /* live objects (same as heap_alloc) */
  uint64_t total_alloc;     /* all objects so far, freed ones included */
  uint64_t sys;             /* heap_sys + metadata_sys + gc_sys */
  uint64_t mallocs;         /* objects handed out so far */
  uint64_t frees;           /* objects freed so far; mallocs - frees are live */
  uint64_t heap_alloc;      /* live objects */
  uint64_t heap_sys;        /* address space of the heap that may hold memory */
  uint64_t heap_idle;       /* heap_sys - heap_inuse */
  uint64_t heap_inuse;      /* in spans */
  uint64_t heap_released;   /* part of heap_idle that holds no memory */
  uint64_t heap_objects;    /* live objects */
  uint64_t metadata_sys;    /* span headers and mcaches */
  uint64_t purged;          /* given back to the system so far */
  uint64_t slow_refills;    /* requests so far that needed another span */
  struct undergo_class_stats by_size[UNDERGO_STATS_CLASSES];
  uint64_t large_mallocs;   /* objects above the largest class */
  uint64_t large_frees;
  /* The collector. */
  uint64_t num_gc;               /* cycles so far */
  uint64_t num_forced_gc;        /* of them by undergo_gc() */
  uint64_t num_abandoned_gc;     /* given up, nothing was reclaimed by them */
  uint64_t pause_total_ns;       /* the world was stopped so long, all cycles together */
  uint64_t max_pause_ns;         /* longest single stop */
  uint64_t last_gc_ns;           /* end of the last cycle, since 1970 */
  uint64_t next_gc;              /* goal of the live heap; the maximum when there is none */
  uint64_t gc_reclaimed_objects; /* freed by the collector, not by the program */
  uint64_t gc_reclaimed_bytes;
  uint64_t gc_probation_objects; /* unreachable, kept for a while to see whether they are used */
  uint64_t gc_probation_bytes;
  uint64_t gc_resurrected;       /* reachable again while on probation */
  uint64_t gc_hidden_frees;      /* freed by the program although nothing pointed to them */
  uint64_t enable_gc;            /* 1 while the collector is on */
  double gc_cpu_fraction;        /* of all CPUs since the start, by the collector */
  uint64_t gc_sys;               /* marks and tables of the collector; address space in use */
  /* Threads that the scheduler runs: address space of all stacks so far, and of those in use. */
  uint64_t stack_sys;
  uint64_t stack_inuse;
  /*
   * Of the last cycles, each in its place of a ring, the last one at
   * (num_gc + UNDERGO_STATS_PAUSES - 1) % UNDERGO_STATS_PAUSES.
   */
  uint64_t pause_ns[UNDERGO_STATS_PAUSES];  /* the world was stopped so long in this cycle */
  uint64_t pause_end[UNDERGO_STATS_PAUSES]; /* its end, in nanoseconds since 1970 */
};

/*
 * Fills the first `size` bytes of *out, so that programs built against an older header work with a
 * newer library. Costs a fraction of a microsecond for each span (64 KiB) of the heap.
 * Returns 0, or -1 when out is null.
 */
UNDERGO_WEAK int undergo_read_stats(struct undergo_stats *out, size_t size);

/*
 * How long the world was stopped for collections, as Go's metrics /sched/pauses/stopping/gc:seconds
 * and /sched/pauses/total/gc:seconds: stops by their length, since the start of the process. Stops
 * that were given up count, too.
 */
struct undergo_pauses {
  uint64_t stopping[UNDERGO_PAUSE_BUCKETS]; /* from the decision until all threads stood still */
  uint64_t total[UNDERGO_PAUSE_BUCKETS];    /* from the decision until they were let go */
};

/*
 * The shortest time in bucket i, in nanoseconds; the bucket ends where the next one begins, the
 * last one is open. Four buckets of 128 ns up to 512 ns, then four equal ones for each doubling.
 */
static inline uint64_t undergo_pause_bucket_ns(unsigned i) {
  return i < 4 ? (uint64_t)i * 128 : (uint64_t)(4 + i % 4) << (i / 4 + 6);
}

/*
 * Fills the first `size` bytes of *out; takes no lock, costs a microsecond. Returns 0, or -1 when
 * out is null.
 */
UNDERGO_WEAK int undergo_read_pauses(struct undergo_pauses *out, size_t size);

/*
 * Runs a whole collection that begins after the call, with its sweep, and waits for it. Objects that
 * it finds unreachable go on probation first: a further collection frees them. Returns 0, or -1 when
 * the collector is off or the collection was given up (a thread could not be stopped).
 */
UNDERGO_WEAK int undergo_gc(void);

/* As GOGC; negative is off. Returns the old value. */
UNDERGO_WEAK int undergo_set_gc_percent(int percent);

/* As GOMEMLIMIT, in bytes; a negative number only returns the old value. */
UNDERGO_WEAK int64_t undergo_set_memory_limit(int64_t bytes);

/*
 * Words in [from, to) count as pointers as long as the process lives: for memory that the library
 * cannot see, such as mappings of devices. At most 64 ranges. Returns 0, or -1.
 */
UNDERGO_WEAK int undergo_add_roots(void *from, void *to);

/*
 * Prints every thread with its state, what it waits for and its call chain, to standard error or
 * the log, in Go's format. Returns at once; a thread of the library prints a moment later. Safe in
 * signal handlers. Returns 0, or -1 when another dump is being printed or no thread can be made.
 */
UNDERGO_WEAK int undergo_dump_threads(void);

/* "MAJOR.MINOR.PATCH" of the library, a constant. */
UNDERGO_WEAK const char *undergo_version(void);

#ifdef __cplusplus
}
#endif

#endif
