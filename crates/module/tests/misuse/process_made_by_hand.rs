//! Only an entry that the server called has a `Process` to give.
// error: E0451
// says: private

fn process() -> module::Process {
    module::Process { owns_its_resources: true, _main_thread_only: core::marker::PhantomData }
}
