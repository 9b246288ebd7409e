//! Zeroed private memory with the alignment of a page, for models and tests of the upper layers.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

pub(super) struct HeapPages {
    base: NonNull<u8>,
    layout: Layout,
}

impl HeapPages {
    pub(super) fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, 4096).expect("a sensible length");
        assert!(len > 0);
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            handle_alloc_error(layout)
        };
        Self { base, layout }
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for HeapPages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
