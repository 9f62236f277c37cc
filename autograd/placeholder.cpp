// Placeholder until this folder has sources; delete me.
