//! What a process that has come to rest gives back.

/// Gives back what the start and the last work have left behind and waiting does not need: free pages of the allocator, and the
/// mappings of what no program writes, its text and its constants. Both stay in the system's cache of files while nobody else wants the
/// memory, and are mapped again, some pages at a time, where they are used; that costs the next work about half a millisecond.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the function is called for each object that is loaded, before this call returns.
    unsafe {
        libc::dl_iterate_phdr(Some(give_back_unwritten), std::ptr::null_mut());
    }
}

/// Gives back the segments of a loaded object that were never writable. The loader's corrections are made in writable ones
/// only (elf(5): `PF_W`), so that reading the others again from their file gives the same.
unsafe extern "C" fn give_back_unwritten(
    object: *mut libc::dl_phdr_info,
    _bytes: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the C library gives an object that lives during the call, with so many headers.
    let (object, headers) = unsafe {
        let object = &*object;
        (object, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for header in headers {
        if let Some((start, bytes)) = unwritten(object.dlpi_addr, header) {
            // SAFETY: see above; only whole pages of the segment are named. A refusal, as for what the kernel itself maps, changes nothing.
            unsafe {
                libc::madvise(start as *mut libc::c_void, bytes, libc::MADV_DONTNEED);
            }
        }
    }
    0
}

/// Address and length in bytes of the whole pages of a segment that is loaded and never written.
fn unwritten(base: u64, header: &libc::Elf64_Phdr) -> Option<(usize, usize)> {
    if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
        return None;
    }
    let page = page_size();
    let start = usize::try_from(base.checked_add(header.p_vaddr)?).ok()?;
    let end = start.checked_add(usize::try_from(header.p_filesz).ok()?)? / page * page;
    let start = start.next_multiple_of(page);
    Some((start, end.checked_sub(start).filter(|bytes| *bytes > 0)?))
}

/// Bytes of a page; a power of two.
fn page_size() -> usize {
    // SAFETY: it only asks.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::{give_back, page_size, unwritten};

    #[test]
    fn only_whole_pages_of_what_is_never_written_are_taken() {
        let check = |kind: u32, flags: u32, start: u64, bytes: u64, expected: Option<(usize, usize)>| {
            let header = libc::Elf64_Phdr {
                p_type: kind,
                p_flags: flags,
                p_offset: 0,
                p_vaddr: start,
                p_paddr: start,
                p_filesz: bytes,
                p_memsz: bytes,
                p_align: 0x1000,
            };
            assert_eq!(unwritten(0x40_0000, &header), expected);
        };
        let page = page_size();
        let pages = 4 * page as u64;
        check(libc::PT_LOAD, libc::PF_R | libc::PF_X, 0, pages, Some((0x40_0000, 4 * page)));
        check(libc::PT_LOAD, libc::PF_R, 0, pages, Some((0x40_0000, 4 * page)));
        check(libc::PT_LOAD, libc::PF_R, 16, pages, Some((0x40_0000 + page, 3 * page)));
        check(libc::PT_LOAD, libc::PF_R, 16, 32, None);
        check(libc::PT_LOAD, libc::PF_R | libc::PF_W, 0, pages, None);
        check(libc::PT_NOTE, libc::PF_R, 0, pages, None);
        check(libc::PT_LOAD, libc::PF_R, u64::MAX, pages, None);
    }

    /// What stands in constants, in text, and behind the loader's corrections (a table of functions) is as it was.
    #[test]
    fn a_process_goes_on() {
        let words: [&dyn std::fmt::Display; 3] = [&"constant", &1.5, &'c'];
        let mut numbers: Vec<u64> = (0..100_000).rev().collect();
        give_back();
        numbers.sort_unstable();
        give_back();
        assert!(numbers.iter().copied().eq(0..100_000));
        assert_eq!(words.map(|word| word.to_string()), ["constant", "1.5", "c"]);
    }
}
