package dnslb
import "time"
const pullEvery, viewTime = 30*time.Second, 10*time.Minute
