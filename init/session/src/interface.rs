// SPDX-License-Identifier: MIT OR Apache-2.0
//! The macros that make a trait into a protocol.
//!
//! A declarative macro was preferred to a derive: no build-time dependency, and what it generates is short enough to be read
//! here.

/// Declares a session's interface: the trait, its client and its server side.
///
/// ```
/// cloister_session::interface! {
///     /// Adds numbers.
///     pub trait Adder, client AdderClient, server AdderServer {
///         /// The sum.
///         1 => fn add(a: u64, b: u64) -> u64;
///     }
/// }
/// ```
#[macro_export]
macro_rules! interface {
    (
        $(#[$meta:meta])*
        pub trait $name:ident, client $client:ident, server $server:ident {
            $(
                $(#[$op_meta:meta])*
                $number:literal => fn $op:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty;
            )+
        }
    ) => {
        $(#[$meta])*
        pub trait $name {
            $(
                $(#[$op_meta])*
                ///
                /// # Errors
                /// What the server says, see `Error`; from a client also that the call did not get through.
                fn $op(&mut self, $($arg: $ty),*) -> Result<$ret, $crate::Error>;
            )+
        }

        #[doc = concat!("Client of [`", stringify!($name), "`]: the same methods, over a transport.")]
        #[derive(Clone, Copy, Debug)]
        pub struct $client<T>(pub T);

        impl<T: $crate::Transport> $client<T> {
            $(
                $(#[$op_meta])*
                ///
                /// # Errors
                /// What the server says, or that the call did not get through.
                pub fn $op(&self, $($arg: $ty),*) -> Result<$ret, $crate::Error> {
                    self.0.exchange(
                        <$ret as $crate::Decode<'_>>::CAPS,
                        |message| {
                            message.word($number)?;
                            $( $crate::Encode::encode(&$arg, message)?; )*
                            Ok(())
                        },
                        $crate::wire_reply::<$ret>,
                    )
                }
            )+
        }

        impl<T: $crate::Transport> $name for $client<T> {
            $(
                fn $op(&mut self, $($arg: $ty),*) -> Result<$ret, $crate::Error> {
                    $client::$op(self, $($arg),*)
                }
            )+
        }

        #[doc = concat!("Server side of [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $server;

        impl $server {
            /// Decodes a request, lets `server` answer it, and encodes the answer. Whatever is wrong with the request ends in
            /// an error in the answer.
            pub fn dispatch<S: $name + ?Sized>(
                server: &mut S,
                request: &mut $crate::Decoder<'_>,
                reply: &mut $crate::Encoder<'_>,
            ) {
                let outcome = Self::answer(server, request, reply);
                $crate::wire_finish(outcome, reply);
            }

            fn answer<S: $name + ?Sized>(
                server: &mut S,
                request: &mut $crate::Decoder<'_>,
                reply: &mut $crate::Encoder<'_>,
            ) -> Result<(), $crate::Error> {
                match request.word()? {
                    $(
                        $number => {
                            $( let $arg = <$ty as $crate::Decode<'_>>::decode(request)?; )*
                            request.finish()?;
                            let value: $ret = server.$op($($arg),*)?;
                            reply.word(0)?;
                            $crate::Encode::encode(&value, reply)
                        }
                    )+
                    _ => Err($crate::Error::NoSuchOperation),
                }
            }
        }
    };
}

/// Reads a reply: an error, or a value and nothing behind it. For [`interface!`].
#[doc(hidden)]
pub fn wire_reply<R: for<'m> crate::Decode<'m>>(message: &mut crate::Decoder<'_>) -> Result<R, crate::Error> {
    let code = message.word()?;
    if code != 0 {
        return Err(crate::Error::from_raw([code, message.word()?, message.word()?]));
    }
    let value = R::decode(message)?;
    message.finish()?;
    Ok(value)
}

/// Turns a failure into a reply. For [`interface!`].
#[doc(hidden)]
pub fn wire_finish(outcome: Result<(), crate::Error>, reply: &mut crate::Encoder<'_>) {
    if let Err(error) = outcome {
        reply.restart();
        // An error is three words: it fits every message.
        let _ = crate::Encode::encode(&error, reply);
    }
}

/// Declares a plain structure that can be put into a message, field by field.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident: $ty:ty, )+
        }
    ) => {
        $(#[$meta])*
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )+
        }

        impl $crate::Encode for $name {
            fn encode(&self, message: &mut $crate::Encoder<'_>) -> Result<(), $crate::Error> {
                $( self.$field.encode(message)?; )+
                Ok(())
            }
        }

        impl<'m> $crate::Decode<'m> for $name {
            const CAPS: u32 = 0_u32 $( .saturating_add(<$ty as $crate::Decode<'m>>::CAPS) )+;

            fn decode(message: &mut $crate::Decoder<'m>) -> Result<Self, $crate::Error> {
                Ok(Self { $( $field: <$ty as $crate::Decode<'m>>::decode(message)?, )+ })
            }
        }
    };
}

/// Declares an enumeration that travels as its number.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )+
        }

        impl $crate::Encode for $name {
            fn encode(&self, message: &mut $crate::Encoder<'_>) -> Result<(), $crate::Error> {
                message.word(match self { $( Self::$variant => $number, )+ })
            }
        }

        impl<'m> $crate::Decode<'m> for $name {
            fn decode(message: &mut $crate::Decoder<'m>) -> Result<Self, $crate::Error> {
                match message.word()? {
                    $( $number => Ok(Self::$variant), )+
                    _ => Err($crate::Error::Malformed),
                }
            }
        }
    };
}

/// Lets a bit mask travel as its bits; unknown ones are malformed.
macro_rules! wire_flags {
    ($name:ident) => {
        impl $crate::Encode for $name {
            fn encode(&self, message: &mut $crate::Encoder<'_>) -> Result<(), $crate::Error> {
                self.bits().encode(message)
            }
        }

        impl<'m> $crate::Decode<'m> for $name {
            fn decode(message: &mut $crate::Decoder<'m>) -> Result<Self, $crate::Error> {
                Self::from_bits(<_ as $crate::Decode<'m>>::decode(message)?).ok_or($crate::Error::Malformed)
            }
        }
    };
}
