// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images good and bad.

use std::io::Cursor;

use super::{Entry, Linux, load};
use crate::{Error, layout};
use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

const RAM: u64 = 64 << 20;

fn memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), usize::try_from(RAM).unwrap())]).unwrap()
}

/// A made-up image of 1 setup sector and `code` bytes of kernel.
fn image(code: usize, change: impl Fn(&mut setup_header)) -> Vec<u8> {
    let mut header = setup_header {
        setup_sects: 1,
        syssize: u32::try_from(code / 16).unwrap(),
        header: super::MAGIC,
        version: 0x20f,
        loadflags: 1,
        xloadflags: 1,
        pref_address: 16 << 20,
        init_size: 8 << 20,
        initrd_addr_max: 0x7fff_ffff,
        cmdline_size: 255,
        ..Default::default()
    };
    change(&mut header);
    let mut bytes = vec![0; 1024];
    bytes[0x1f1..0x1f1 + header.as_slice().len()].copy_from_slice(header.as_slice());
    bytes.extend((0..code).map(|i| u8::try_from(i % 251).unwrap()));
    bytes
}

fn boot(image: &[u8], initrd: Option<&[u8]>, cmdline: &str) -> Result<(Entry, GuestMemoryMmap), Error> {
    let memory = memory();
    let mut initrd = initrd.map(Cursor::new);
    let linux = Linux {
        kernel: &mut Cursor::new(image),
        initrd: initrd.as_mut(),
        command_line: cmdline,
        rsdp: layout::ACPI,
        ram: RAM,
    };
    load(&memory, linux).map(|entry| (entry, memory))
}

#[test]
fn a_good_image_lands_at_its_preferred_address() {
    let (entry, memory) = boot(&image(4096, |_| {}), Some(b"ramdisk"), "quiet").unwrap();
    assert_eq!(entry, Entry { rip: (16 << 20) + 0x200, boot_params: layout::ZERO_PAGE });
    let params: boot_params = memory.read_obj(GuestAddress(layout::ZERO_PAGE)).unwrap();
    assert_eq!({ params.acpi_rsdp_addr }, layout::ACPI);
    let ramdisk = u64::from(params.hdr.ramdisk_image);
    assert_eq!((ramdisk, { params.hdr.ramdisk_size }), (RAM - (2 << 20), 7));
    let mut text = [0; 7];
    memory.read_slice(&mut text, GuestAddress(ramdisk)).unwrap();
    assert_eq!(&text, b"ramdisk");
    let mut line = [0; 6];
    memory.read_slice(&mut line, GuestAddress(u64::from(params.hdr.cmd_line_ptr))).unwrap();
    assert_eq!(&line, b"quiet\0");
    assert_eq!(memory.read_obj::<u8>(GuestAddress((16 << 20) + 252)).unwrap(), 1);
}

#[test]
fn the_memory_map_covers_ram_once() {
    let (_, memory) = boot(&image(16, |_| {}), None, "").unwrap();
    let params: boot_params = memory.read_obj(GuestAddress(layout::ZERO_PAGE)).unwrap();
    let table = params.e820_table;
    let list: Vec<_> =
        table.iter().take(usize::from(params.e820_entries)).map(|e| (e.addr, e.size, e.r#type)).collect();
    assert!(list.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "{list:x?}");
    assert!(list.contains(&(0x10_0000, RAM - 0x10_0000, 1)));
    assert!(!list.iter().any(|&(a, s, t)| t == 1 && a < layout::ACPI + layout::ACPI_SIZE && layout::ACPI < a + s));
}

#[test]
fn a_truncated_image_is_named_with_both_sizes() {
    let whole = image(4096, |_| {});
    let error = boot(&whole[..3000], None, "").unwrap_err();
    assert_eq!(error, Error::KernelTruncated { announced: 1024 + 4096, found: 3000 });
    assert!(error.to_string().contains("5120") && error.to_string().contains("3000"));
    assert!(matches!(boot(&whole[..100], None, ""), Err(Error::KernelTruncated { found: 100, .. })));
    assert!(matches!(boot(&[], None, ""), Err(Error::KernelTruncated { found: 0, .. })));
}

#[test]
fn images_that_are_none_are_refused() {
    let refused = |change: fn(&mut setup_header)| matches!(boot(&image(64, change), None, ""), Err(Error::Kernel(_)));
    assert!(refused(|h| h.header = 0));
    assert!(refused(|h| h.version = 0x0205));
    assert!(refused(|h| h.xloadflags = 0));
    assert!(!refused(|_| {}));
}

#[test]
fn sizes_that_wrap_are_refused() {
    let huge = boot(&image(64, |h| h.syssize = u32::MAX), None, "");
    assert!(matches!(huge, Err(Error::KernelTruncated { .. })));
    let far = boot(&image(64, |h| h.pref_address = u64::MAX), None, "");
    assert!(matches!(far, Err(Error::DoesNotFit { what: "kernel", .. })));
    let big = boot(&image(64, |h| h.init_size = u32::MAX), None, "");
    assert!(matches!(big, Err(Error::DoesNotFit { what: "kernel", .. })));
}

#[test]
fn what_does_not_fit_is_named() {
    let initrd = vec![0; 60 << 20];
    let error = boot(&image(64, |_| {}), Some(&initrd), "").unwrap_err();
    assert!(matches!(error, Error::DoesNotFit { what: "initrd", needed, .. } if needed == 60 << 20));
    let line = "x".repeat(300);
    let error = boot(&image(64, |_| {}), None, &line).unwrap_err();
    assert_eq!(error, Error::CommandLine { given: 300, limit: 255 });
}
