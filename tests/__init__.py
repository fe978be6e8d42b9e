"""The tests as a package: without this file another distribution's package of that name would be found first."""
