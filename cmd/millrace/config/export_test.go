package config

import "reflect"

// CollectOf lists the settings of another type than Config.
func CollectOf[T any]() []Setting { return collect(reflect.TypeFor[T](), "", nil) }
