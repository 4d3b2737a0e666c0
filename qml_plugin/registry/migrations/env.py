"""What Alembic runs to bring a database up: on the connection, and in the transaction, that it is handed."""

from __future__ import annotations

from alembic import context

from qml_plugin.registry.schema import VERSION_TABLE, metadata


def run() -> None:
    """Apply the pending revisions inside the caller's transaction, so that a failure leaves nothing behind."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


# Alembic executes this file under a name of its own; an import by its package name has nothing to migrate.
if __name__ != "qml_plugin.registry.migrations.env":
    run()
