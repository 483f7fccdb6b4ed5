//! The parts of the export line have their order.
// says: module::export! takes, in this order: settings, load, archive, recovery, backup_target, worker

fn on_load(_: module::Loading) -> Result<(), module::Failure> {
    Ok(())
}

struct Keeper;

module::export! {
    archive: Keeper,
    load: on_load,
}
