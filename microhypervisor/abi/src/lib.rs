// SPDX-License-Identifier: MIT OR Apache-2.0
//! The contract between the microhypervisor and everything above it.
#![no_std]
