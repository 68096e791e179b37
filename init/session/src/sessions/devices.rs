// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver needs: device memory, ports, interrupts. Each belongs to one session at a time.

use crate::{Cap, Object};

interface! {
    /// Device memory. Session arguments: `base=`, `size=` (bytes; whole pages are handed out), `wc=1` for write-combining.
    pub trait IoMem, client IoMemClient, server IoMemServer {
        /// The memory as a dataspace.
        1 => fn dataspace() -> Cap;
    }
}

interface! {
    /// A range of I/O ports. Session arguments: `base=`, `size=`.
    pub trait IoPort, client IoPortClient, server IoPortServer {
        /// Lets the threads of a PD use the ports.
        1 => fn map(pd: Object) -> ();
    }
}

interface! {
    /// An interrupt. Session arguments: `gsi=` and, if the machine's tables shall not decide, `trigger=edge|level` and
    /// `polarity=high|low`.
    pub trait Irq, client IrqClient, server IrqServer {
        /// Lets the interrupt raise a signal of the client's. It is acknowledged by the hypercall `IrqAck` on the signal.
        1 => fn bind(signal: Cap) -> ();
    }
}
