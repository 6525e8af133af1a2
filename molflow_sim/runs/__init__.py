"""What every long job needs: whole files, the store, identities, scheduling and progress."""
