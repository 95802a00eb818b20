//! What a policy weighs: the time to load it and the memory it keeps, counted at the allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Instant,
};

use stepgate_bench::{Shape, Stepgate};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    println!("{:<10} {:>9} {:>10} {:>14} {:>14}", "shape", "bindings", "load ms", "bytes/binding", "peak bytes/b.");
    for shape in [Shape::Clients, Shape::Families, Shape::Denies, Shape::Roles] {
        for count in [1_000, 10_000, 100_000] {
            let before = LIVE.load(Relaxed);
            PEAK.store(before, Relaxed);
            let started = Instant::now();
            let set = Stepgate::new(shape, count);
            let took = started.elapsed().as_millis();
            let (kept, peak) = (LIVE.load(Relaxed) - before, PEAK.load(Relaxed) - before);
            println!("{:<10} {count:>9} {took:>10} {:>14} {:>14}", format!("{shape:?}"), kept / count, peak / count);
            drop(set);
        }
    }
}
