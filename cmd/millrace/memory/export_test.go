package memory

// StartWith is Start with another measure.
var StartWith = start
