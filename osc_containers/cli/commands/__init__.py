"""The commands: add declares a command's arguments, run does its work."""
