//! Enums whose variants stand for numbers on the wire.
//!
//! One table per enum gives the number and the name, so the codec, the bindings, the documentation
//! and the dissector's test all speak from the same line.

/// Declare an enum with `number()`, `name()`, `from_number()` and `ALL`.
macro_rules! numbered {
    (
        $(#[$meta:meta])*
        $name:ident: $number:ty {
            $( $(#[$variant_meta:meta])* $variant:ident = $value:literal $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr($number)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $value, )+
        }

        impl $name {
            /// Every variant, in the order of the table.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The number on the wire.
            pub const fn number(self) -> $number {
                self as $number
            }

            /// The name in lower case, as Python and the dissector spell it.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $text, )+
                }
            }

            /// The variant with this number, if this version knows one.
            pub const fn from_number(number: $number) -> Option<Self> {
                match number {
                    $( $value => Some(Self::$variant), )+
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use numbered;
