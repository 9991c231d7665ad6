"""Makes the command `compare` a module of this package too; what it does is in the package `comparing`."""
