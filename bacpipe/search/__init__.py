"""The nearest windows to a clip, a window, several windows, a recogniser or words."""
