"""The course: pages of docs/course, whose commands this program runs and whose figures it writes."""
