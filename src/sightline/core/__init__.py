"""The ground floor: what every other room may say and nothing about pictures or networks.

Roles (Protocols), output types, errors, devices and threads, lazy imports, atomic files.
Knows no model, no file format, no task. Imports no other room.
"""
