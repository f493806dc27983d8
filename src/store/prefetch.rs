//! A hint to the processor: what will be read soon, so that the wait for memory passes meanwhile.
#![expect(unsafe_code, reason = "the instruction takes a pointer")]

/// Begins to fetch the cache line of `place`. Costs nothing if it is there; changes nothing.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint; it reads nothing, and would ignore even an address that is not mapped.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
