//! One macro a world: puts a stage behind the exported functions of a component.

/// Exports a [`Stage`](crate::Stage) whose output is [`Events`](crate::Events) as a component of world `stage`.
#[macro_export]
macro_rules! export_stage {
    ($stage:ty) => {
        $crate::export_world!(
            $crate::Runner<$stage>,
            stage,
            {
                $crate::export_state!();

                fn process(input: Input) -> Output {
                    with_runner(|runner| runner.process(input))
                }
            },
            process
        );
    };
}

/// Exports a [`Stage`](crate::Stage) whose output is [`Tables`](crate::Tables) as a component of world `writer`.
#[macro_export]
macro_rules! export_writer {
    ($stage:ty) => {
        $crate::export_world!(
            $crate::Runner<$stage>,
            writer,
            {
                $crate::export_state!();

                fn write(input: Input) -> Written {
                    with_runner(|runner| runner.process(input))
                }
            },
            write
        );
    };
}

/// Exports a [`Decoder`](crate::Decoder) as a component of world `fetcher`.
#[macro_export]
macro_rules! export_fetcher {
    ($decoder:ty) => {
        $crate::export_world!(
            $crate::DecoderRunner<$decoder>,
            fetcher,
            {
                fn decode(frames: Frames) -> Decoded {
                    with_runner(|runner| runner.decode(frames))
                }
            },
            decode
        );
    };
}

/// What the worlds have in common. The runner lives in a static: a component is one instance, called by one thread.
#[macro_export]
#[doc(hidden)]
macro_rules! export_world {
    ($runner:ty, $world:ident, { $($functions:tt)* }, $interface:ident) => {
        // The generated exports carry link names, which the compiler counts as unsafe code.
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "generated exports of the component")]
        mod component {
            use super::*;
            use $crate::bindings::{
                events::Input,
                state::{Description, Entry, SettingError, StateError},
                $world::exports::tapeline::pipeline::$interface::*,
            };

            struct Component;

            std::thread_local! {
                static RUNNER: std::cell::RefCell<Option<$runner>> = const { std::cell::RefCell::new(None) };
            }

            fn with_runner<T>(call: impl FnOnce(&mut $runner) -> T) -> T {
                RUNNER.with_borrow_mut(|runner| call(runner.as_mut().expect("configure is called first")))
            }

            impl Guest for Component {
                fn configure(settings: String) -> Result<(), SettingError> {
                    RUNNER.set(Some(<$runner>::new(&settings)?));
                    Ok(())
                }

                fn describe() -> Description {
                    with_runner(|runner| runner.describe())
                }

                $($functions)*
            }

            $crate::bindings::$world::export!(Component with_types_in $crate::bindings::$world);
        }
    };
}

/// The functions of a world with state.
#[macro_export]
#[doc(hidden)]
macro_rules! export_state {
    () => {
        fn restore(entries: Vec<Entry>, watermark: i64) -> Result<(), StateError> {
            Ok(with_runner(|runner| runner.restore(entries, watermark))?)
        }

        fn checkpoint() -> Vec<Entry> {
            with_runner(|runner| runner.checkpoint())
        }

        fn keys(input: Input) -> Vec<String> {
            with_runner(|runner| runner.keys(input))
        }
    };
}
